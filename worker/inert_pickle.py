"""What the pickle in a torch file says, as plain data. Its program is read, never run.

A pickle is a program for a stack machine, and the usual machine imports what it names and calls it. This one
calls nothing: of the few names that it knows, each stands for a value of this file, and any other is refused.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lcq.errors import WeightsRefused

MOST_BYTES = 16 * 2**20  # big-lama's has 0.2 MB
_MOST_STEPS = 2_000_000  # and 40,000 steps; a list of all that such a pickle makes stays below 300 MB

DTYPE_OF_STORAGE = {
    "torch.FloatStorage": "F32",
    "torch.DoubleStorage": "F64",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
_TENSOR = "torch._utils._rebuild_tensor_v2"
_PARAMETER = "torch._utils._rebuild_parameter"
_ORDERED = "collections.OrderedDict"
_SCRIPTED = "__torch__."

# What training programs leave in a checkpoint beside the weights. Each becomes an empty stand-in.
_HARMLESS = frozenset(
    {
        "argparse.Namespace",
        "collections.Counter",
        "collections.defaultdict",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.nodes.AnyNode",
        "pathlib.PosixPath",
        "torch.Size",
        "torch.device",
        *(f"torch.jit._pickle.build_{kind}list" for kind in ("bool", "double", "int", "tensor")),
        "typing.Any",
        *(f"torch.{name}" for name in ("float16", "float32", "float64", "bfloat16", "int64", "int32", "uint8", "bool")),
        *(
            f"{package}.{name}"
            for package in ("pytorch_lightning", "lightning.pytorch")
            for name in (
                "callbacks.early_stopping.EarlyStopping",
                "callbacks.lr_monitor.LearningRateMonitor",
                "callbacks.model_checkpoint.ModelCheckpoint",
                "callbacks.progress.ProgressBar",
                "utilities.parsing.AttributeDict",
            )
        ),
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("dict", "int", "list", "set")),
    }
)


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file, by the name of its record."""

    dtype: str
    key: str
    elements: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count elements. Nothing is checked but that these are integers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Name:
    """A global that the pickle names."""

    full: str


@dataclass(eq=False)
class StandIn:
    """An object of a class that we do not have: its name, and for a scripted module what it holds."""

    name: str
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def is_scripted(self) -> bool:
        return self.name.startswith(_SCRIPTED)


def read_pickle(content: bytes, label: str) -> Any:
    """The value that a torch pickle describes: dicts (of their text keys alone), lists, tuples, numbers, text,
    ``Tensor`` and ``StandIn``. ``label`` names the file in errors.

    Raises:
        WeightsRefused: it names anything but tensor rebuilding and the listed stand-ins, or is damaged.
    """
    if len(content) > MOST_BYTES:
        _refuse(label, f"its description has {len(content)} bytes, more than the {MOST_BYTES} that weights need")
    machine = _Machine(label)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts, which are nobody's concern here
            return _followed(machine, content)
    except (ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, struct.error) as error:
        raise WeightsRefused(
            label, f"its description is damaged: {' '.join(str(error).split())}", hint="get the file anew"
        ) from error


def _followed(machine: _Machine, content: bytes) -> Any:
    """What is on top of the stack when the pickle ends."""
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if step >= _MOST_STEPS:
            _refuse(machine.label, f"its description has more than {_MOST_STEPS} steps")
        if opcode.name == "STOP":
            return machine.stack.pop()
        act = _ACTS.get(opcode.name)
        if act is None:
            _refuse(machine.label, f"its description has the step {opcode.name}, which no torch file needs")
        act(machine, argument)
    raise EOFError("it has no end")


def _refuse(label: str, found: str, hint: str = "get the weights as the project publishes them") -> NoReturn:
    raise WeightsRefused(label, found, hint=hint)


class _Machine:
    """The stack, the marks on it and the memo. A value on it is never callable."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def to_mark(self) -> list[Any]:
        """All above the last mark, which goes with it."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def some(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise IndexError("the stack is too short")
        taken = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return taken

    def name(self, module: Any, attribute: Any) -> _Name:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise TypeError("a global is named by two texts")
        full = f"{module}.{attribute}"
        scripted = f"{module}.".startswith(_SCRIPTED)
        if not (scripted or full in DTYPE_OF_STORAGE or full in (_TENSOR, _PARAMETER, _ORDERED) or full in _HARMLESS):
            _refuse(
                self.label,
                f"it asks for {full[:200]!r}, which weights do not need; nothing of it was run",
                "do not open this file with anything that would run it; get the weights as the project publishes them",
            )
        return _Name(full)

    def made(self, name: Any, arguments: Any) -> Any:
        """What a call of ``name`` means here."""
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise TypeError("a call of what is no name")
        if name.full == _TENSOR:
            return _tensor(arguments)
        if name.full == _PARAMETER:
            if not arguments or not isinstance(arguments[0], Tensor):
                raise TypeError("a parameter without a tensor")
            return arguments[0]
        if name.full == _ORDERED:
            if arguments:
                raise TypeError("a filled OrderedDict")
            return {}
        return StandIn(name.full)

    def set_items(self, flat: list[Any]) -> None:
        """Put keys and values, in turn, into the dict on the stack."""
        target = self.stack[-1]
        if isinstance(target, StandIn):
            return
        if not isinstance(target, dict) or len(flat) % 2:
            raise TypeError("items for what is no dict")
        target.update(_by_text(flat))

    def append(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, StandIn):
            raise TypeError("values for what is no list")

    def build(self) -> None:
        target, state = self.some(2)
        self.stack.append(target)
        if isinstance(target, StandIn):
            if target.is_scripted and isinstance(state, dict):
                target.state = state
        elif not isinstance(target, dict):  # an OrderedDict's attributes, such as a state dict's _metadata: dropped
            raise TypeError("a state for what has none")

    def persistent(self, what: Any) -> Storage:
        if not isinstance(what, tuple) or len(what) != 5 or what[0] != "storage":
            raise TypeError("a reference to what is no storage")
        _, kind, key, _, elements = what
        dtype = DTYPE_OF_STORAGE.get(kind.full) if isinstance(kind, _Name) else None
        if dtype is None or type(key) is not str or type(elements) is not int:
            raise TypeError("a storage without type, key or size")
        return Storage(dtype, key, elements)


def _by_text(flat: list[Any]) -> dict[str, Any]:
    # Other keys lead to no weights; and a key that nests deep enough would overflow the hash's own stack.
    return {key: value for key, value in zip(flat[::2], flat[1::2], strict=True) if type(key) is str}


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    storage, offset, shape, strides = arguments[:4]
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or any(type(number) is not int for number in numbers):
        raise TypeError("a tensor without storage, offset, shape or strides")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


_Act = Callable[[_Machine, Any], object]


def _mark(machine: _Machine, _: Any) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _push(machine: _Machine, value: Any) -> None:
    machine.stack.append(value)


def _pop(machine: _Machine, _: Any) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.to_mark()


def _remember_at(machine: _Machine, index: Any) -> None:
    machine.memo[index] = machine.stack[-1]


def _global(machine: _Machine, words: Any) -> None:
    machine.stack.append(machine.name(*words.split(" ", 1)))  # genops joins module and name so


def _stack_global(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.name(*machine.some(2)))


def _call(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.made(*machine.some(2)))


def _call_with_keywords(machine: _Machine, _: Any) -> None:
    name, arguments, _ = machine.some(3)
    machine.stack.append(machine.made(name, arguments))


def _inst(machine: _Machine, words: Any) -> None:
    name = machine.name(*words.split(" ", 1))
    _push(machine, machine.made(name, tuple(machine.to_mark())))


def _group(make: Callable[[list[Any]], Any]) -> _Act:
    return lambda machine, _: _push(machine, make(machine.to_mark()))


_PUSHED = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_ACTS: dict[str, _Act] = {
    **dict.fromkeys(_PUSHED.split(), _push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _remember_at),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: _push(machine, machine.memo[index])),
    "MEMOIZE": lambda machine, _: _remember_at(machine, len(machine.memo)),
    "NONE": lambda machine, _: _push(machine, None),
    "NEWTRUE": lambda machine, _: _push(machine, True),
    "NEWFALSE": lambda machine, _: _push(machine, False),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.to_mark(),
    "DUP": lambda machine, _: _push(machine, machine.stack[-1]),
    "EMPTY_TUPLE": lambda machine, _: _push(machine, ()),
    "TUPLE": _group(tuple),
    "TUPLE1": lambda machine, _: _push(machine, machine.some(1)),
    "TUPLE2": lambda machine, _: _push(machine, machine.some(2)),
    "TUPLE3": lambda machine, _: _push(machine, machine.some(3)),
    "EMPTY_LIST": lambda machine, _: _push(machine, []),
    "LIST": _group(list),
    "APPEND": lambda machine, _: machine.append(list(machine.some(1))),
    "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
    "EMPTY_DICT": lambda machine, _: _push(machine, {}),
    "DICT": _group(_by_text),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.some(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "EMPTY_SET": lambda machine, _: _push(machine, []),  # sets hold no weights: a list does for them
    "ADDITEMS": lambda machine, _: machine.append(machine.to_mark()),
    "FROZENSET": _group(list),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _inst,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_keywords,
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: _push(machine, machine.persistent(machine.stack.pop())),
}
