"""A slow, obvious, recursive Karel, written from KAREL.md alone: what the compiled machine must equal.

Programs are nested lists: an action name, ("if", cond, block), ("ifelse", cond, block, block), ("while", cond,
block), ("repeat", n, block); a condition is (name, negated). It shares no code with karel_env.
"""

from __future__ import annotations

from dataclasses import dataclass, field

STEP = {0: (-1, 0), 1: (0, 1), 2: (1, 0), 3: (0, -1)}


class Crash(Exception):
    pass


class Timeout(Exception):
    pass


@dataclass
class Karel:
    walls: set
    markers: dict
    row: int
    column: int
    heading: int
    mode: str = "noop"
    cap: int | None = None
    budget: int = 1000
    meaning: dict = field(default_factory=dict)
    tests: dict = field(default_factory=dict)
    events: int = 0
    actions: int = 0
    trace: list = field(default_factory=list)

    def spend(self) -> None:
        if self.events == self.budget:
            raise Timeout
        self.events += 1

    def clear(self, turn: int) -> bool:
        dy, dx = STEP[(self.heading + turn) % 4]
        return (self.row + dy, self.column + dx) not in self.walls

    def act(self, name: str) -> None:
        self.spend()
        effect = self.meaning.get(name, name)
        here = (self.row, self.column)
        count = self.markers.get(here, 0)
        if effect == "turn_left":
            self.heading = (self.heading - 1) % 4
        elif effect == "turn_right":
            self.heading = (self.heading + 1) % 4
        elif effect == "move" and self.clear(0):
            dy, dx = STEP[self.heading]
            self.row, self.column = self.row + dy, self.column + dx
        elif effect == "pick_marker" and count > 0:
            self.markers[here] = count - 1
        elif effect == "put_marker" and (self.cap is None or count < self.cap):
            self.markers[here] = count + 1
        elif self.mode == "crash":
            raise Crash
        elif self.mode == "turn180" and effect == "move":
            self.heading = (self.heading + 2) % 4
        self.actions += 1
        self.trace.append((-1, self.row, self.column, self.heading))

    def test(self, condition: tuple[str, bool]) -> bool:
        self.spend()
        name, negated = condition
        name, flipped = self.tests.get(name, (name, False))
        here = self.markers.get((self.row, self.column), 0) > 0
        value = {
            "front_is_clear": lambda: self.clear(0),
            "left_is_clear": lambda: self.clear(-1),
            "right_is_clear": lambda: self.clear(1),
            "markers_present": lambda: here,
            "no_markers_present": lambda: not here,
        }[name]()
        value = (value != flipped) != negated
        self.trace.append((int(value), self.row, self.column, self.heading))
        return value

    def block(self, statements: list) -> None:
        for statement in statements:
            if isinstance(statement, str):
                self.act(statement)
            elif statement[0] == "if":
                if self.test(statement[1]):
                    self.block(statement[2])
            elif statement[0] == "ifelse":
                self.block(statement[2] if self.test(statement[1]) else statement[3])
            elif statement[0] == "while":
                while self.test(statement[1]):
                    self.block(statement[2])
            else:
                for _ in range(statement[1]):
                    self.spend()
                    self.block(statement[2])

    def run(self, statements: list) -> str:
        try:
            self.block(statements)
        except Crash:
            return "crash"
        except Timeout:
            return "timeout"
        return "ok"


def text(statements: list) -> str:
    """The curly syntax, in a spelling that is not the printer's."""

    def condition(c: tuple[str, bool]) -> str:
        return ("not " if c[1] else "") + c[0] + "( )"

    def one(s: object) -> str:
        if isinstance(s, str):
            return f"{s}()"
        if s[0] == "repeat":
            return f"repeat({s[1]}){{{body(s[2])}}}"
        tail = f" else\n{{ {body(s[3])} }}" if s[0] == "ifelse" else ""
        return f"{s[0]}({condition(s[1])}){{{body(s[2])}}}{tail}"

    def body(block: list) -> str:
        return "; ".join(one(s) for s in block)

    return f"def run(){{ {body(statements)} }}"
