"""YAML, read as a person means a configuration file, and written so that every reader takes a text for a text.

Every scalar stays the text that stands there, so that a pool named ``1.10`` or ``yes`` keeps its name; only null is
None. A key that a mapping has twice is refused. YAML libraries silently take the last one, and half of a configuration
is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml


class YamlError(ValueError):
    """A text that is no YAML; the message says why and where, in one line."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = "a key that its mapping already has"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node


def _as_written(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


for _word in ("bool", "int", "float", "timestamp", "value", "merge", "str"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_word}", _as_written)


def documents(source: bytes | str) -> list[Any]:
    """The documents of a text: mappings, lists, texts and None. Raises ``YamlError``."""
    try:
        return list(yaml.load_all(source, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise YamlError(f"not YAML: {_one_line(error.problem or error.context or 'unreadable')}{place}") from error
    except yaml.reader.ReaderError as error:
        raise YamlError("not YAML: not a text, or with characters that YAML does not allow") from error
    except UnicodeDecodeError as error:
        raise YamlError("not YAML: not a text") from error
    except RecursionError:
        raise YamlError("not YAML that can be read: nested too deeply") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Dumper(yaml.SafeDumper):
    pass


_NUMBER_LIKE = re.compile(r"[-+]?[.0-9][0-9a-fox_.]*(e[-+]?[0-9.]+)?|[yn]", re.IGNORECASE)
"""What some reader of YAML takes for something else than a text, such as 1e3 or y; PyYAML quotes only its own."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if _NUMBER_LIKE.fullmatch(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


def written(manifests: Iterable[dict[str, Any]]) -> str:
    """The manifests as documents of one text, their keys in the order that they have."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, default_flow_style=False)
