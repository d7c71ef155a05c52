"""Options of a command, declared once as the fields of a dataclass.

    @dataclass(frozen=True, kw_only=True)
    class StatusOptions:
        \"\"\"Print the progress of a run.\"\"\"

        run: Path = argument("run folder, or a folder of run folders")
        json: bool = option(False, "print JSON, one object per run")

    options = parse_options(StatusOptions, arguments, "status")

The docstring's first line is the description. A field whose type is a dataclass is a group of options: nested in the
result, on the command line beside the others. `read_with` converts text where the type alone (bool, str, Path) does not
say how. Imports of this module are light, so that a wrong option and `--help` answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from benchmark.command import note_renamed
from karel_env.command import CommandParser, nearest, quoted, shown

Options = TypeVar("Options")
DECLARATION = "declaration"
"""Key of the metadata of a declared field."""
CONSOLE_SCRIPT = "karel-bench"
MAX_USAGE_OPTIONS = 12
"""Options up to which the first lines of the help have them all."""

_is_dispatched: ContextVar[bool] = ContextVar("is_dispatched", default=False)


@dataclass(frozen=True)
class Declaration:
    """How one field is given on the command line.

    Attributes:
        help: imperative phrase, with the unit of a number.
        positional: whether it is an argument, without a name.
        flag: spelling, such as `--batch-size`; empty for the field's name with hyphens.
        old: earlier spellings, still accepted, with a note.
        read_with: converts the text, and raises `argparse.ArgumentTypeError`; None: as the type says.
        choices: the only values; empty for any.
        metavar: placeholder of the value in the help.
        default_text: the default as the help tells it; None: the value itself, if it is one.
        many: whether it can be repeated, or takes several values if positional.
        commands: subcommands and their dataclasses; empty for a plain value.
    """

    help: str
    positional: bool = False
    flag: str = ""
    old: tuple[str, ...] = ()
    read_with: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    default_text: str | None = None
    many: bool = False
    commands: Mapping[str, type] | None = None


def option(default: Any, help: str, **how: Any) -> Any:
    """Declare an option.

    Args:
        default: the default; `...` makes the option required; a function is called when the options are read.
        help: see `Declaration`.
        how: the other attributes of `Declaration`.
    """
    metadata = {DECLARATION: Declaration(help, **how)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=MISSING if default is ... else default, metadata=metadata)


def argument(help: str, default: Any = ..., **how: Any) -> Any:
    """Declare a positional argument, required unless it has a default. `how`: as for `option`."""
    declaration = Declaration(help, positional=True, **how)
    return field(default=MISSING if default is ... else default, metadata={DECLARATION: declaration})


def subcommand(commands: Mapping[str, type]) -> Any:
    """Declare the subcommands of a command: the field's value is an instance of one of these dataclasses."""
    return field(metadata={DECLARATION: Declaration("", commands=commands)})


def group(options: type[Options], **defaults: Any) -> Options:
    """Declare a group of options; `defaults` replace those that the dataclass declares."""
    return field(default_factory=lambda: options(**defaults), metadata=defaults)


@contextmanager
def dispatched() -> Iterator[None]:
    """Within, commands are subcommands of `karel-bench`, and messages and help name them so."""
    token = _is_dispatched.set(True)
    try:
        yield
    finally:
        _is_dispatched.reset(token)


def program_name(name: str, module: str = "") -> str:
    """How the command `name` was called, such as `karel-bench run` or `python -m benchmark.run`.

    Args:
        name: name of the subcommand.
        module: its module for `python -m`; empty for `benchmark.NAME`.
    """
    if _is_dispatched.get():
        return f"{CONSOLE_SCRIPT} {name}"
    return f"python -m {module or f'benchmark.{name}'}"


class OptionsParser(CommandParser):
    """A parser that accepts old spellings, abbreviates nothing, and suggests the nearest name for an unknown one."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **how})
        self.old_spellings: dict[str, str] = {}
        self.commands: dict[str, argparse.ArgumentParser] = {}

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """See `argparse.ArgumentParser`."""
        argv = [self._current_spelling(word) for word in self._before_dashes(sys.argv[1:] if args is None else args)]
        argv += list(sys.argv[1:] if args is None else args)[len(argv) :]
        for word in self._before_command(argv):
            name = word.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                self.error(f"{shown(name)}: no such option{self._hint(name)}")
        namespace, unknown = super().parse_known_args(argv, namespace)
        if unknown:
            self.error(f"{quoted(unknown[0])}: not expected here{self._hint(unknown[0])}")
        return namespace, unknown

    def _before_dashes(self, argv: Sequence[str]) -> list[str]:
        words = list(argv)
        return words[: words.index("--")] if "--" in words else words

    def _before_command(self, argv: Sequence[str]) -> list[str]:
        words = self._before_dashes(argv)
        return words[: next((i for i, word in enumerate(words) if word in self.commands), len(words))]

    def _current_spelling(self, word: str) -> str:
        name, equals, value = word.partition("=")
        current = self.old_spellings.get(name)
        if current is None:
            return word
        note_renamed(name, current)
        return current + equals + value

    def _hint(self, word: str) -> str:
        if not word.startswith("-"):
            return ""
        names = (name.removeprefix("--") for name in self._option_string_actions if name.startswith("--"))
        return nearest(word.partition("=")[0].lstrip("-"), names, prefix="--")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(
                action, f"{quoted(str(value))}: expected {_listed(names)}{nearest(str(value), names)}"
            )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def declared_fields(options: type) -> tuple[tuple[Field[Any], Any], ...]:
    """The fields of a dataclass of options with their types: arguments in order, then its own options, then inherited."""

    def group_index(entry: Field[Any]) -> int:
        declaration = entry.metadata.get(DECLARATION)
        if declaration is not None and declaration.positional:
            return 0
        return 1 if entry.name in options.__annotations__ else 2

    hints = get_type_hints(options)
    return tuple((entry, hints[entry.name]) for entry in sorted(fields(options), key=group_index))


def build_parser(options: type, prog: str, epilog: str | None = None) -> OptionsParser:
    """Build the parser of a dataclass of options."""
    parser = OptionsParser(prog=prog, description=_first_line(options), epilog=epilog)
    _add_fields(parser, parser, options, "", {})
    parser.usage = _short_usage(parser)
    return parser


def _short_usage(parser: OptionsParser) -> str | None:
    """The usage without its optional options, which the help lists; None, for all of them, if they are few."""
    required = [action for action in parser._actions if action.option_strings and action.required]
    arguments = [action for action in parser._actions if not action.option_strings]
    if parser.commands or len(parser._actions) - len(required) - len(arguments) <= MAX_USAGE_OPTIONS:
        return None
    words = [f"{action.option_strings[0]} {_value_name(action)}" for action in required]
    for action in arguments:
        name = f"{_value_name(action)}{' ...' if action.nargs in ('*', '+') else ''}"
        words.append(f"[{name}]" if action.nargs in ("?", "*") else name)
    return " ".join([parser.prog, *words, "[OPTIONS]"])


def _value_name(action: argparse.Action) -> str:
    """What argparse writes for the value of an option: its placeholder, or its choices."""
    return str(action.metavar or f"{{{','.join(map(str, action.choices or ()))}}}")


def parse_options(
    options: type[Options], arguments: Sequence[str] | None, name: str, epilog: str | None = None, module: str = ""
) -> Options:
    """Parse a command line.

    Args:
        options: dataclass that declares the options.
        arguments: the words after the command's name; None for those of the process.
        name: name of the command, such as `run`.
        epilog: printed at the end of the help.
        module: see `program_name`.

    Raises:
        UsageExit: an option is unknown, missing or invalid.
    """
    namespace = build_parser(options, program_name(name, module), epilog).parse_args(arguments)
    return _construct(options, namespace, "", {})


def _first_line(options: type) -> str:
    return (options.__doc__ or "").strip().split("\n")[0]


def _add_fields(
    parser: OptionsParser, target: argparse._ActionsContainer, options: type, path: str, defaults: Mapping[str, Any]
) -> None:
    for entry, hint in declared_fields(options):
        declaration = entry.metadata.get(DECLARATION)
        destination = f"{path}{entry.name}"
        if declaration is None:
            section = parser.add_argument_group(_first_line(hint).rstrip("."))
            _add_fields(parser, section, hint, f"{destination}.", entry.metadata)
        elif declaration.commands is not None:
            _add_commands(parser, destination, declaration.commands)
        else:
            _add_field(parser, target, entry, hint, destination, defaults.get(entry.name, _default(entry)))


def _default(entry: Field[Any]) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _add_commands(parser: OptionsParser, destination: str, commands: Mapping[str, type]) -> None:
    actions = parser.add_subparsers(dest=destination, required=True, metavar="COMMAND", parser_class=OptionsParser)
    for name, options in commands.items():
        description = _first_line(options)
        child = actions.add_parser(name, help=description.rstrip("."), description=description)
        _add_fields(child, child, options, f"{destination}.{name}.", {})
        parser.commands[name] = child


def _add_field(
    parser: OptionsParser,
    target: argparse._ActionsContainer,
    entry: Field[Any],
    hint: Any,
    destination: str,
    default: Any,
) -> None:
    declaration: Declaration = entry.metadata[DECLARATION]
    has_default = default is not MISSING
    how: dict[str, Any] = {"help": _help_text(declaration, default)}
    if declaration.choices:
        how["choices"] = declaration.choices
    if declaration.positional:
        how["metavar"] = declaration.metavar or entry.name.upper()
        if declaration.many:
            how["nargs"] = "*" if has_default else "+"
        elif has_default:
            how |= {"nargs": "?", "default": default}
        how |= _converter(declaration, hint)
        target.add_argument(destination, **how)
        return
    flag = declaration.flag or f"--{entry.name.replace('_', '-')}"
    parser.old_spellings |= dict.fromkeys(declaration.old, flag)
    if hint is bool:
        target.add_argument(flag, dest=destination, action="store_true", help=how["help"])
        return
    if declaration.many:
        how |= {"action": "append", "default": []}
    else:
        how |= {"default": default} if has_default else {"required": True}
    placeholder = declaration.metavar or (None if declaration.choices else _placeholder(entry.name, hint))
    target.add_argument(flag, dest=destination, metavar=placeholder, **how, **_converter(declaration, hint))


def _converter(declaration: Declaration, hint: Any) -> dict[str, Any]:
    if declaration.read_with is not None:
        return {"type": declaration.read_with}
    return {"type": Path} if "Path" in str(hint) else {}


def _placeholder(name: str, hint: Any) -> str:
    return "PATH" if "Path" in str(hint) else name.upper().replace("_", "-")


def _help_text(declaration: Declaration, default: Any) -> str:
    text = declaration.default_text
    if text is None and default is not MISSING and default not in (None, "", False, ()):
        text = f"{default:g}" if isinstance(default, float) else str(default)
    # argparse formats help texts with the % operator.
    return (declaration.help + (f" (default: {text})" if text else "")).replace("%", "%%")


def _construct(
    options: type[Options], namespace: argparse.Namespace, path: str, defaults: Mapping[str, Any]
) -> Options:
    """Build the dataclass, and those nested in it, from the parsed values."""
    values: dict[str, Any] = {}
    for entry, hint in declared_fields(options):
        declaration = entry.metadata.get(DECLARATION)
        destination = f"{path}{entry.name}"
        if declaration is None:
            values[entry.name] = _construct(hint, namespace, f"{destination}.", entry.metadata)
            continue
        value = getattr(namespace, destination)
        if declaration.commands is not None:
            value = _construct(declaration.commands[value], namespace, f"{destination}.{value}.", {})
        values[entry.name] = tuple(value) if declaration.many else value
    return options(**values)
