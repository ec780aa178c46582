{{- define "berthlb.name" -}}
{{ .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{- /* What objects' names begin with; "-controller" has to fit behind it. */ -}}
{{- define "berthlb.fullname" -}}
{{- $name := include "berthlb.name" . -}}
{{- $release := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ .Values.fullnameOverride | default $release | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- /* The labels of a daemon's objects, by which its pods are selected: (list . "speaker"). A selector can never change. */ -}}
{{- define "berthlb.labels" -}}
{app.kubernetes.io/name: {{ include "berthlb.name" (index . 0) }}, app.kubernetes.io/component: {{ index . 1 }}}
{{- end }}

{{- /* Of the pods: "app" is what a tutorial for MetalLB waits for. Not "component", which MetalLB's webhook Service selects. */ -}}
{{- define "berthlb.podLabels" -}}
{{- $ours := dict "app" "metallb" "app.kubernetes.io/name" (include "berthlb.name" (index . 0)) "app.kubernetes.io/component" (index . 1) -}}
{{ toYaml (merge $ours (index (index . 0).Values (index . 1)).labels) }}
{{- end }}

{{- define "berthlb.serviceAccount" -}}
{{- $account := (index (index . 0).Values (index . 1)).serviceAccount -}}
{{- $made := printf "%s-%s" (include "berthlb.fullname" (index . 0)) (index . 1) -}}
{{ $account.name | default ($account.create | ternary $made "default") }}
{{- end }}

{{- /* MetalLB's own image is not what this chart runs, whatever registry it is copied to; nor is a tag of its releases. */ -}}
{{- define "berthlb.isMetalLBsRepository" -}}
{{- if regexMatch "(^|/)metallb/(controller|speaker)$" (. | default "") }}true{{ end -}}
{{- end }}
{{- define "berthlb.isMetalLBsTag" -}}
{{- if regexMatch "^(v0[.][0-9]+[.][0-9]+|main)$" (. | default "") }}true{{ end -}}
{{- end }}

{{- define "berthlb.image" -}}
{{- $image := (index (index . 0).Values (index . 1)).image -}}
{{- $ours := printf "berthlb/%s" (index . 1) -}}
{{- $repository := include "berthlb.isMetalLBsRepository" $image.repository | empty | ternary $image.repository "" -}}
{{- $tag := include "berthlb.isMetalLBsTag" $image.tag | empty | ternary $image.tag "" -}}
{{ $repository | default $ours }}:{{ $tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{- /* The fields of a probe that are set. */ -}}
{{- define "berthlb.probe" -}}
{{- $set := pick . "initialDelaySeconds" "periodSeconds" "timeoutSeconds" "successThreshold" "failureThreshold" -}}
{{- range $field, $value := $set }}
{{ $field }}: {{ $value }}
{{- end }}
{{- end }}

{{- /* What every pod has from the values, each where it is set. */ -}}
{{- define "berthlb.podFields" -}}
{{- $root := index . 0 -}}
{{- $daemon := index $root.Values (index . 1) -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with $daemon.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
nodeSelector:
  kubernetes.io/os: linux
{{- with omit $daemon.nodeSelector "kubernetes.io/os" }}
{{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "berthlb.podAnnotations" -}}
{{- $root := index . 0 -}}
{{- $annotations := (index $root.Values (index . 1)).podAnnotations | default dict -}}
{{- if $root.Values.prometheus.scrapeAnnotations }}
{{- $port := eq (index . 1) "speaker" | ternary $root.Values.speaker.metricsPort $root.Values.prometheus.metricsPort -}}
{{- $annotations = merge (dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString $port)) $annotations }}
{{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Whether somebody elsewhere is to read the speakers' metrics. */ -}}
{{- define "berthlb.isScraped" -}}
{{- with .Values.prometheus }}
{{- if or .scrapeAnnotations .podMonitor.enabled .serviceMonitor.enabled }}true{{ end }}
{{- end }}
{{- end }}

{{- /* The values that are set and mean nothing here, one a line. */ -}}
{{- define "berthlb.unused" -}}
{{- $values := .Values -}}
{{- range $path, $why := .Files.Get "files/unused.yaml" | fromYaml }}
{{- $found := $values }}
{{- range splitList "." $path }}
{{- $found = kindIs "map" $found | ternary (get (kindIs "map" $found | ternary $found dict) .) "" }}
{{- end }}
{{- if and (not (kindIs "invalid" $found)) (ne (toString $found) "") (ne (toString $found) (toString $why.default)) }}
{{ $path }}: {{ $why.reason }}
{{- end }}
{{- end }}
{{- range $daemon := list "controller" "speaker" }}
{{- $image := (index $values $daemon).image }}
{{- if include "berthlb.isMetalLBsRepository" $image.repository }}
{{ $daemon }}.image.repository: that is MetalLB's image; BerthLB's is taken.
{{- end }}
{{- if include "berthlb.isMetalLBsTag" $image.tag }}
{{ $daemon }}.image.tag: that is a release of MetalLB; BerthLB's {{ $.Chart.AppVersion }} is taken.
{{- end }}
{{- end }}
{{- end }}
