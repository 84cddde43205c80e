"""Arguments in a TOML file: `--config` reads them, a run folder keeps those that it was made with."""

import difflib
import sys
import tomllib
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Protocol

import typer

from notbugs.cli.options import OUTPUTS, check_kept, check_numbers
from notbugs.errors import InputError
from notbugs.exit_codes import CLOSED
from notbugs.runs.arguments import MOST, NAME, keep_arguments, kept_on_open


class Named(Protocol):
    """A parameter of a command, as typer has it."""

    name: str
    opts: list[str]
    multiple: bool
    nargs: int


# Of the machine and of one call: a run is the same without them
NOT_KEPT = ("config", "out", "folder", "dry_run", "quiet", "verbose", "json", "junit", "sarif", "workers", "executor", "device")


_running: ContextVar[typer.Context | None] = ContextVar("_running", default=None)


def running() -> typer.Context | None:
    """The command that runs, with all its arguments; None before it has begun."""
    return _running.get()


def source_of(context: typer.Context, name: str) -> str:
    """Where an argument of a command is from: COMMANDLINE, DEFAULT_MAP (a file of `--config`) or DEFAULT; "" if it has none."""
    source = context.get_parameter_source(name)
    return source.name if source else ""


def write_alone(path: Path, option: str = "--out") -> None:
    """No other process writes a file until the command ends. Raises InputError if one does already."""
    from notbugs.atomic import only_writer

    if (context := running()) is not None:
        context.with_resource(only_writer(path, option))


def with_config(command: Callable[..., None]) -> Callable[..., None]:
    """A command with `--config`; where it made a run folder, its arguments are kept there."""
    before = signature(command)

    @wraps(command)
    def called(context: typer.Context, **given: object) -> None:
        token = _running.set(context)
        try:
            done(context, **given)
        finally:
            _running.reset(token)

    def done(context: typer.Context, **given: object) -> None:
        config = given.pop("config")
        check_numbers(given)
        for name in OUTPUTS:
            if given.get(name):
                check_kept({"config": config}, name, Path(str(given[name])))
        try:
            with kept_on_open(partial(_keep, context)):
                command(**given, **({"context": context} if takes_context else {}))
        except BrokenPipeError:  # typer would exit with 1, which here says something of a model
            sys.stdout = None  # or Python would try to write the rest, and say that it cannot
            raise typer.Exit(CLOSED) from None

    takes_context = "context" in before.parameters
    kind = Parameter.POSITIONAL_OR_KEYWORD
    others = [each for name, each in before.parameters.items() if name != "context"]
    context = Parameter("context", kind, annotation=typer.Context)
    config = Parameter("config", kind, default=None, annotation=ConfigFile)
    parameters = [context, *(each.replace(kind=kind) for each in others), config]
    called.__signature__ = before.replace(parameters=parameters)  # type: ignore[attr-defined]  # what typer reads
    called.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
    return called


def _use(context: typer.Context, value: Path | None) -> Path | None:
    """Make what a file says the defaults of a command."""
    if value is not None:
        context.default_map = read(value, context)
    return value


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        is_eager=True,
        callback=_use,
        help="Take arguments from a TOML file, from the table that is called like the command; those of the command line come "
        f"first. A run folder has one: {NAME}.",
    ),
]


def read(path: Path, context: typer.Context) -> dict[str, object]:
    """The arguments in a file, by parameter. Raises InputError for a file or an argument that cannot be used."""
    from notbugs.atomic import read_at_most

    command = context.command.name or ""
    if not path.exists():
        raise InputError("--config", "no such file", str(path))
    try:
        tables = tomllib.loads(read_at_most(path, MOST).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also a number of more than 4,300 digits
        if isinstance(error, InputError):
            raise
        raise InputError("--config", f"{path} must be TOML", str(error)) from None
    table = tables.get(command)
    if not isinstance(table, dict):
        raise InputError("--config", f"{path} must have a table [{command}]", ", ".join(tables) or "nothing")
    known = {_key(each): each for each in context.command.params if each.name not in ("config", "help")}
    found: dict[str, object] = {}
    for key, value in table.items():
        parameter = known.get(key)
        if parameter is None:
            close = difflib.get_close_matches(key, known, 1)
            remedy = f"do you mean {close[0]}?" if close else f"notbugs {command} --help lists them"
            raise InputError("--config", f"{path} must have arguments of notbugs {command} alone", key, remedy)
        found[str(parameter.name)] = _checked(value, key, path, parameter)
    return found


def _key(parameter: Named) -> str:
    """What a parameter is called in the file: its option without dashes."""
    names = [name for name in parameter.opts if name.startswith("--")] or [parameter.name]
    return str(names[0]).removeprefix("--").replace("_", "-")


def _checked(value: object, key: str, path: Path, parameter: Named) -> object:
    """A value as the command line has it: text, but for flags. Raises InputError for one that it cannot have."""
    several = parameter.multiple or parameter.nargs == -1
    each = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str | int | float) for one in each):
        raise InputError("--config", f"{path}: {key} must be text, a number or true or false", type(value).__name__)
    if isinstance(value, list) and not several:
        raise InputError("--config", f"{path}: {key} must be one value", f"a list of {len(value)}")
    is_flag = bool(getattr(parameter, "is_flag", False))
    if any(isinstance(one, bool) is not is_flag for one in each):
        got = f"the text {value!r}" if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
        raise InputError("--config", f"{path}: {key} must be {'true or false' if is_flag else 'text or a number'}", got)
    if any("\0" in str(one) for one in each):
        raise InputError("--config", f"{path}: {key} must have no null character", value)
    return value if is_flag else [str(one) for one in each] if several else str(value)


# ---- write -------------------------------------------------------------------------------------------------------------------


def _keep(context: typer.Context, folder: Path) -> None:
    """Write the arguments of a command into the run folder of its --out, beside those of an earlier command."""
    out = Path(str(context.params.get("out") or ""))  # typer 0.27 has text here
    if not context.params.get("out") or folder != out:
        return
    given = {_key(each): context.params[str(each.name)] for each in context.command.params if _is_kept(context, str(each.name))}
    keep_arguments(out, context.command.name or "", given, known={_key(each) for each in context.command.params})


def _is_kept(context: typer.Context, name: str) -> bool:
    return name in context.params and name not in NOT_KEPT and source_of(context, name) not in ("", "DEFAULT")
