"""Report on a pull request: refusals and notes per row, as text of bounded length and as a summary of counts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from benchmark.errors import SubmissionError
from benchmark.files import sanitize
from benchmark.submit.folder import NAME_PATTERN

MAX_LISTED = 20
REPORT_CHARACTERS, ROW_CHARACTERS, LINE_CHARACTERS = 50_000, 9_000, 400
NEW, CHANGED, REMOVED, RENAMED = "new", "changed", "removed", "renamed"
REFUSED = SubmissionError.exit_code


@dataclass
class RowReport:
    """Report on one row.

    Attributes:
        folder: name of the submission.
        kind: `NEW`, `CHANGED`, `REMOVED` or `RENAMED`.
        code: exit code.
        refusals, notes: one line per entry.
        details: completed checks, or a table of mismatches.
    """

    folder: str
    kind: str
    code: int = 0
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: str = ""

    def refuse(self, reason: str, code: int = REFUSED) -> None:
        """Add a refusal and raise the exit code to at least `code`."""
        self.refusals.append(reason)
        self.code = max(self.code, code)

    def text(self) -> str:
        """Render the report as text of at most `ROW_CHARACTERS` characters."""
        name = self.folder if NAME_PATTERN.fullmatch(self.folder) else sanitize(self.folder)
        outcome = self.kind if self.kind in (REMOVED, RENAMED) else "verified"
        if self.code:
            outcome = "refused" if self.refusals else "differs"
        lines = [f"{name}: {outcome}", f"- {self.kind} row", *(f"- refused: {refusal}" for refusal in self.refusals)]
        lines += [f"- {note}" for note in self.notes]
        body = "\n".join(line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]} (cut)" for line in lines)
        text = f"{body}\n\n{self.details}" if self.details else body
        return text if len(text) <= ROW_CHARACTERS else f"{text[:ROW_CHARACTERS]}\n(cut)"


@dataclass
class ChangeReport:
    """Report on a pull request: its rows, and refusals and notes that concern no single row."""

    rows: list[RowReport] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    code: int = 0

    @property
    def exit_code(self) -> int:
        """Largest exit code of the pull request and its rows."""
        return max([self.code, *(row.code for row in self.rows)])

    def text(self) -> str:
        """Render the report in printable ASCII of bounded length."""
        parts = [f"refused: {refusal}" for refusal in self.refusals[:MAX_LISTED]]
        if len(self.refusals) > MAX_LISTED:
            parts.append(f"({len(self.refusals) - MAX_LISTED} more)")
        parts += [f"- {note}" for note in self.notes[:MAX_LISTED]]
        return make_printable("\n\n".join([*(["\n".join(parts)] if parts else []), *(row.text() for row in self.rows)]))

    def summary(self) -> str:
        """Render the exit code and the row counts as one line of JSON; a comment on the pull request shows only these."""
        counts = {
            kind: min(99, sum(row.kind == kind for row in self.rows)) for kind in (NEW, CHANGED, REMOVED, RENAMED)
        }
        num_refused = min(99, sum(row.code > 0 for row in self.rows))
        return json.dumps({"exit_code": self.exit_code, **counts, "refused": num_refused}) + "\n"


def make_printable(text: str) -> str:
    """Convert text to printable ASCII of bounded length, without workflow commands of GitHub Actions."""
    ascii_text = text.encode("ascii", "backslashreplace").decode()
    visible = "".join(char if char.isprintable() or char == "\n" else "?" for char in ascii_text)
    lines = [
        f". {line}" if line.lstrip().startswith("::") else line for line in visible.replace("##[", "#_[").split("\n")
    ]
    printable = "\n".join(lines)
    if len(printable) > REPORT_CHARACTERS:
        printable = f"{printable[:REPORT_CHARACTERS]}\n(cut: {len(printable):,} characters)"
    return printable + "\n"
