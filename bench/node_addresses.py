"""What a change of one node costs the controller, where many Services show the addresses of many nodes.

    python -m bench.node_addresses [--services 1000] [--nodes 50] [--json FILE]

Every Service has both families and a port of its own, and beside them as many Services have an address of a pool. The
controller's decisions are driven without an API server, as its threads would drive them: each write is answered, and
then seen. Measured are the writes, the Services that are judged, and the CPU of the decisions from the news of the
change to the last answer. What the API server takes is not in it.

- *assign*: all Services come at once.
- *restart*: a controller that knows nothing reads everything.
- *leaves*, *joins*: one node of those that all Services show.
- *unseen*: a node changes that no Service shows.
- *few*: a node changes that a tenth of the Services show, since their pool selects it alone.
- *frees*: a Service goes whose port another one waits for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.report import Figures, arguments, progress, show, write
from controller.services import decisions, judgement
from tests.controller.world import World

POOL = "metallb.io/address-pool"
FIRST_PORT = 20_000
DUAL: dict[str, Any] = {"clusterIPs": ["10.96.0.1", "fd00:96::1"], "ipFamilyPolicy": "RequireDualStack"}
SOLO = {"nodeSelectors": [{"matchLabels": {"solo": "yes"}}], "autoAssign": False}
SHARED = {"nodeSelectors": [{"matchLabels": {"solo": "no"}}], "autoAssign": False}


class Timed:
    """Passes all calls on, and adds up the CPU that they take."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.cpu_s = 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def timed(*arguments: Any) -> Any:
            begun = time.process_time()
            try:
                return found(*arguments)
            finally:
                self.cpu_s += time.process_time() - begun

        return timed


class Bench:
    def __init__(self, services: int, nodes: int) -> None:
        self.world = World({"lan": "192.168.0.0/16"})
        self.world.configure_nodes(shared=SHARED, solo=SOLO)
        for number in range(1, nodes + 1):
            self.node(number)
        self.node(nodes + 1, solo="yes")
        self._services, self._nodes = services, nodes
        self._judged = 0
        self._count_judgements()

    def node(self, number: int, *, solo: str = "no", ready: str = "True") -> None:
        internal = f"10.0.{number >> 8}.{number & 255} 2001:db8::{number:x}"
        self.world.machine(f"node-{number}", internal=internal, labels={"solo": solo}, ready=ready)

    def _count_judgements(self) -> None:
        judge = judgement.judge

        def counting(*arguments: Any, **named: Any) -> Any:
            self._judged += 1
            return judge(*arguments, **named)

        vars(decisions)["judge"] = counting

    def put(self, number: int, pool: str, port: int) -> None:
        parts = DUAL if pool != "lan" else {}
        self.world.put(f"{pool}-{number}", annotations={POOL: pool}, ports=[{"port": port}], **parts)

    def measure(self, happen: Callable[[], None], *, restart: bool = False) -> Figures:
        if restart:
            begun = time.process_time()
            self.world.start()
            started = time.process_time() - begun
        else:
            started = 0.0
        timed = Timed(self.world.controller)
        self.world.controller = timed  # type: ignore[assignment]
        self.world.take_writes()
        self._judged = 0
        happen()
        self.world.rest()
        self.world.controller = timed._inner
        return {"writes": len(self.world.take_writes()), "judged": self._judged, "cpu_s": started + timed.cpu_s}

    def run(self) -> dict[str, Figures]:
        count, last = self._services, self._nodes
        self.world.start()

        def assign() -> None:
            for number in range(count):
                self.put(number, "shared", FIRST_PORT + number)
                self.put(number, "lan", 80)
            for number in range(count // 10):
                self.put(number, "solo", FIRST_PORT + number)

        def free() -> None:
            self.world.delete("solo-0")

        results = {"assign": self.measure(assign)}
        results["restart"] = self.measure(lambda: None, restart=True)
        results["leaves"] = self.measure(lambda: self.node(last, ready="False"))
        results["unseen"] = self.measure(lambda: self.node(last, ready="Unknown"))
        results["joins"] = self.measure(lambda: self.node(last))
        results["few"] = self.measure(lambda: self.node(last + 1, solo="yes", ready="False"))
        self.node(last + 1, solo="yes")
        self.world.rest()
        self.put(count, "solo", FIRST_PORT)
        self.world.rest()
        results["frees"] = self.measure(free)
        return results


def main() -> None:
    parser = arguments("node_addresses", __doc__)
    parser.add_argument("--services", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--nodes", type=int, default=50, metavar="N", help="default: %(default)s")
    options = parser.parse_args()
    progress.print(f"{options.services} Services, {options.nodes} nodes")
    results = Bench(options.services, options.nodes).run()
    show(["", "writes", "judged", "CPU, s"], {name: list(each.values()) for name, each in results.items()})
    write(options.json, results)


if __name__ == "__main__":
    main()
