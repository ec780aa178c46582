"""A client makes HTTP requests at a steady rate, each over a new connection.

    python -m lab.measuring.load http://172.18.255.200/ --rate 50

The clock starts the requests, not the answers: while nothing answers, requests go on being made, as users make them.
Each request that has ended becomes one line of JSON: ``{"start": …, "end": …, "ok": true, "node": "node-1"}`` or
``{"start": …, "end": …, "ok": false, "error": "timeout"}``. Times are seconds of CLOCK_MONOTONIC. The first line is
``{"ready": true}``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import time
from urllib.parse import SplitResult, urlsplit


async def fetch(url: SplitResult) -> dict[str, object]:
    """One GET over its own connection; the workload's JSON answer."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        writer.write(f"GET {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] + b" ":
        raise ConnectionError(f"unexpected answer {head[:40]!r}")
    decoded: dict[str, object] = json.loads(body)
    return decoded


async def measured(url: SplitResult, timeout: float) -> None:
    start = time.monotonic()
    line: dict[str, object] = {"start": round(start, 6)}
    try:
        answer = await asyncio.wait_for(fetch(url), timeout)
        line |= {"ok": True, "node": answer.get("node")}
    except TimeoutError:
        line |= {"ok": False, "error": "timeout"}
    except (OSError, ValueError) as error:
        line |= {"ok": False, "error": str(error)}
    line["end"] = round(time.monotonic(), 6)
    print(json.dumps(line), flush=True)


async def load(url: SplitResult, rate: float, timeout: float, duration: float | None) -> None:
    """Start ``rate`` requests a second until the duration (seconds) is over or SIGTERM comes; wait for the last."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(json.dumps({"ready": True}), flush=True)
    running: set[asyncio.Task[None]] = set()
    began = due = time.monotonic()
    while not stopped.is_set() and (duration is None or time.monotonic() - began < duration):
        task = asyncio.create_task(measured(url, timeout))
        running.add(task)
        task.add_done_callback(running.discard)
        due += 1 / rate
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), max(0.0, due - time.monotonic()))
    await asyncio.gather(*running)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="lab.measuring.load", description="Steady HTTP load, one line for each request."
    )
    parser.add_argument("url", type=urlsplit)
    parser.add_argument("--rate", type=float, default=50, help="requests started each second (50)")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds until a request counts as lost (1)")
    parser.add_argument("--duration", type=float, help="stop after so many seconds")
    args = parser.parse_args()
    asyncio.run(load(args.url, args.rate, args.timeout, args.duration))
    return 0


if __name__ == "__main__":
    sys.exit(main())
