"""A client makes HTTP requests at a steady rate, each over a new connection, and beside them some over connections that
stay open.

    python -m lab.measuring.load http://172.18.255.200/ http://[fd00:b1b::255:200]/ --rate 50 --connections 5

The clock starts the requests, not the answers: while nothing answers, requests go on being made, as users make them.
They go to the URLs in turn. Each request that has ended becomes one line of JSON: ``{"start": …, "end": …, "ok": true,
"node": "node-1"}`` or ``{"start": …, "end": …, "ok": false, "error": "timeout"}``. Times are seconds of
CLOCK_MONOTONIC. The first line is ``{"ready": true}``.

Each of the connections to a URL carries one request after the other, ten a second. Their lines have the connection's
number as well: ``"connection": 3``. One that is not ok is a connection that broke. It is opened again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from collections.abc import Awaitable, Sequence
from urllib.parse import SplitResult, urlsplit

Answer = dict[str, object]
EACH_S = 0.1
"""Between two requests over a connection that stays open."""
LONG_TIMEOUT_S = 5.0
"""Without an answer for so long a connection is broken: TCP has repeated the request three times by then."""


async def ask(url: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, last: bool) -> Answer:
    """One GET over an open connection, the last one or not; the workload's JSON answer."""
    closing = "Connection: close\r\n" if last else ""
    writer.write(f"GET {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc}\r\n{closing}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0] + b" ":
        raise ConnectionError(f"unexpected answer {head[:40]!r}")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    decoded: Answer = json.loads(await reader.readexactly(length))
    return decoded


async def fetch(url: SplitResult) -> Answer:
    """One GET over its own connection."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        return await ask(url, reader, writer, last=True)
    finally:
        writer.close()


async def measured(request: Awaitable[Answer], timeout: float, **about: object) -> bool:
    """Wait for a request, and write its line; whether it got its answer."""
    start = time.monotonic()
    line: dict[str, object] = {"start": round(start, 6), "ok": False, **about}
    try:
        answer = await asyncio.wait_for(request, timeout)
        line |= {"ok": True, "node": answer.get("node")}
    except TimeoutError:
        line["error"] = "timeout"
    except (OSError, EOFError, ValueError) as error:
        line["error"] = str(error)
    line["end"] = round(time.monotonic(), 6)
    print(json.dumps(line), flush=True)
    return line["ok"] is True


async def keep_open(number: int, url: SplitResult, timeout: float) -> None:
    """A connection that stays open, and is opened again when it breaks, for ever."""
    while True:
        try:
            opening = asyncio.open_connection(url.hostname, url.port or 80)
            reader, writer = await asyncio.wait_for(opening, timeout)
        except (OSError, TimeoutError):
            await asyncio.sleep(EACH_S)
            continue
        try:
            while await measured(ask(url, reader, writer, last=False), timeout, connection=number):
                await asyncio.sleep(EACH_S)
        finally:
            writer.close()


async def load(urls: Sequence[SplitResult], rate: float, connections: int, timeout: float) -> None:
    """Start ``rate`` requests a second until SIGTERM comes; wait for the last."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(json.dumps({"ready": True}), flush=True)
    pairs = enumerate(url for url in urls for _ in range(connections))
    opened = [asyncio.create_task(keep_open(number, url, LONG_TIMEOUT_S)) for number, url in pairs]
    running: set[asyncio.Task[bool]] = set()
    due = time.monotonic()
    for url in itertools.cycle(urls):
        task = asyncio.create_task(measured(fetch(url), timeout))
        running.add(task)
        task.add_done_callback(running.discard)
        due += 1 / rate
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), max(0.0, due - time.monotonic()))
        if stopped.is_set():
            break
    for each in opened:
        each.cancel()
    await asyncio.gather(*running)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="lab.measuring.load", description="Steady HTTP load, one line for each request."
    )
    parser.add_argument("url", nargs="+", type=urlsplit)
    parser.add_argument("--rate", type=float, default=50, help="requests started each second (50)")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds until a request counts as lost (1)")
    parser.add_argument("--connections", type=int, default=0, help="that stay open to each URL (0)")
    args = parser.parse_args()
    asyncio.run(load(args.url, args.rate, args.connections, args.timeout))
    return 0


if __name__ == "__main__":
    sys.exit(main())
