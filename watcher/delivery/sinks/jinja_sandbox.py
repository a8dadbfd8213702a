"""Renders a Jinja2 template within bounds: of what it may reach, and of what it may cost.

It imports jinja2, and is imported itself once a sink has such a template. It knows no event: what a template sees is
handed in. A bound is counted and not timed, so that what is rendered again comes out the same.
"""

import traceback
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import ChainableUndefined, Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from watcher.delivery.sinks.jinja_filters import (
    ALLOWED,
    ALLOWED_TESTS,
    CHARACTERS_PER_STEP,
    NUMBER_BITS,
    Steps,
    TooMuchError,
    bounded,
    charged_slice,
    charged_whole,
    current_steps,
    each,
    joined,
    size_of,
    steps_range,
    weighed,
)
from watcher.delivery.sinks.template import TemplateFailure

NODES_PER_STEP = 10
"""To run the body of a loop, a macro or a block once more costs a step for so many of its nodes."""

_METHODS: Mapping[type, frozenset[str]] = {
    dict: frozenset({"get", "items", "keys", "values"}),
    str: frozenset({"endswith", "lower", "split", "splitlines", "startswith", "strip", "upper"}),
}
_ITS_OWN = (LoopContext, Macro, Namespace, Undefined)
_NO_FILES = (nodes.Extends, nodes.FromImport, nodes.Import, nodes.Include)
_Repeated = TypeVar("_Repeated", nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)
_FILE = "<template>"
"""What Jinja calls a template that has no file, in tracebacks."""

_SEE_NAMES = "what a template sees is in docs/sinks.md"
_HANDLE_ABSENT = 'write default(""), or ask by if'
_MAKE_SHORTER = "make it shorter: it may take some thousand steps"


class BadTemplateError(Exception):
    """A template cannot be used, or rendered nothing that can be; the text holds nothing of it or of an event."""

    def __init__(self, failure: TemplateFailure) -> None:
        """Keep where it is and what."""
        super().__init__(failure.reason)
        self.failure = failure


class SandboxedTemplate:
    """A template that was compiled. `names` are those it may use."""

    def __init__(self, source: str, *, names: Iterable[str]) -> None:
        """Compile it. Raises `BadTemplateError` for what is no template, and for a name that there is not."""
        environment = _Sandbox()
        try:
            tree = environment.parse(source)
            _check(tree, names={*names, *environment.globals})
            self._template = environment.from_string(_Metered().visit(tree))
        except TemplateSyntaxError as error:
            raise BadTemplateError(TemplateFailure(error.lineno, error.message or "is no template")) from None
        except RecursionError:
            raise BadTemplateError(TemplateFailure(0, "is nested too deeply")) from None
        except BadTemplateError:
            raise
        except Exception as error:  # noqa: BLE001 (jinja2 makes Python of it, which may be none: an argument given twice)
            raise BadTemplateError(TemplateFailure(0, f"cannot be compiled ({type(error).__name__})")) from None

    def render(self, values: Mapping[str, Any], *, steps_count: int) -> str:
        """Return what it makes of the values in so many steps. Raises `BadTemplateError`."""
        token = current_steps.set(Steps(steps_count))
        try:
            return self._template.render(values)
        except Exception as error:  # noqa: BLE001 (a template may do whatever comes to mind)
            raise BadTemplateError(_failure_of(error)) from None
        finally:
            current_steps.reset(token)


class _Absent(ChainableUndefined):
    """What is not there: nothing to a condition, a loop or `default`, and an error where it would be written out."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return self._undefined_hint or f'"{self._undefined_name}" is absent'

    def __str__(self) -> str:  # noqa: PLE0307 (it never does)
        """Refuse to be written out."""
        self._fail_with_undefined_error()


class _Namespace(Namespace):
    """What a template may set the attributes of. It shows none of them, for these may hold one another."""

    def __repr__(self) -> str:
        """Return what it is."""
        return "<namespace>"


class _Sandbox(ImmutableSandboxedEnvironment):
    """Lets a template reach what it is handed, and charges it for whatever makes much of little."""

    intercepted_binops = frozenset({"*", "**", "%", "+", "-", "/", "//"})

    def __init__(self) -> None:
        super().__init__(undefined=_Absent, optimized=False, keep_trailing_newline=False)
        self.filters = {**ALLOWED, "_each": each, "_slice": charged_slice, "_weighed": weighed, "_whole": charged_whole}
        self.tests = dict(ALLOWED_TESTS)
        self.globals = {"range": steps_range, "namespace": _Namespace, "dict": dict}

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Return the text of parts as they come."""
        return joined(parts)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item; to find it takes a hash of the argument, and whatever sorts by it makes a key of it."""
        item = super().getitem(obj, charged_whole(argument))
        current_steps.get().spend(1 + size_of(item))
        return item

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a key of a mapping before its method: a label may be called `items`."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> None:
        """Return nothing: `format`, which can make a long text of a short one, is none of the methods that are kept."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may have this: of the values that it is handed a few methods."""
        is_kept = isinstance(obj, _ITS_OWN) or attr in _METHODS.get(type(obj), ())
        return is_kept and super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Charge an operator for what it is about to make."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"{operator} is not available")
        if operator == "+":
            current_steps.get().spend(size_of(left) + size_of(right))
        if operator == "*":
            current_steps.get().spend(_product_size(left, right))
        return bounded(super().call_binop(context, operator, bounded(left), bounded(right)))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Charge a call for what it is of and what it makes, be it of a macro that calls itself."""
        steps = current_steps.get()
        steps.spend(1 + size_of(getattr(obj, "__self__", None)))
        charged_whole((*args, *kwargs.values()))
        result = super().call(context, obj, *args, **kwargs)
        steps.spend(size_of(result))
        return result


class _Metered(NodeTransformer):
    """Has charged what Jinja does by itself: the turns of a loop, and what is put together, written and compared."""

    def __init__(self) -> None:
        self._visited_count = 0

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Count what there is, once."""
        self._visited_count += 1
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 (as its base)
        test_weight = sum(1 for _ in node.test.find_all(nodes.Node)) // NODES_PER_STEP if node.test else 0
        self._visit_body(node)
        node.iter = _filtered(node.iter, "_each")
        if node.test and test_weight:
            node.test = _weighed(node.test, test_weight)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802 (as its base)
        return self._visit_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:  # noqa: N802 (as its base)
        return self._visit_body(node)

    def visit_Block(self, node: nodes.Block) -> nodes.Block:  # noqa: N802 (as its base)
        return self._visit_body(node)

    def _visit_body(self, node: _Repeated) -> _Repeated:
        """Have paid for each time that a body is run: it may be as long as the file."""
        count = self._visited_count
        self.generic_visit(node)
        weight = (self._visited_count - count) // NODES_PER_STEP
        if weight:
            nothing = nodes.Const(None, lineno=node.lineno)
            node.body.insert(0, nodes.ExprStmt(_weighed(nothing, weight), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 (as its base)
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802 (as its base)
        self.generic_visit(node)
        node.nodes = [
            part if isinstance(part, nodes.TemplateData) else _filtered(part, "_whole") for part in node.nodes
        ]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802 (as its base)
        self.generic_visit(node)
        node.expr = _filtered(node.expr, "_whole")
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, "_whole")
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Filter:  # noqa: N802 (as its base)
        self.generic_visit(node)
        return _filtered(node, "_whole")

    def visit_List(self, node: nodes.List) -> nodes.Filter:  # noqa: N802 (as its base)
        self.generic_visit(node)
        return _filtered(node, "_whole")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:  # noqa: N802 (as its base)
        self.generic_visit(node)
        return _filtered(node, "_whole") if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:  # noqa: N802 (as its base)
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _filtered(node.node, "_slice")
        return node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _weighed(node: nodes.Node, weight: int) -> nodes.Filter:
    return nodes.Filter(node, "_weighed", [nodes.Const(weight)], [], None, None, lineno=node.lineno)


def _check(tree: nodes.Template, *, names: set[str]) -> None:
    """Raise `BadTemplateError` for what can be seen to be wrong before anything is rendered."""
    for node in tree.find_all(_NO_FILES):
        raise BadTemplateError(TemplateFailure(node.lineno, "a template is one file: it can include no other"))
    unknown = find_undeclared_variables(tree) - names
    for name in tree.find_all(nodes.Name):
        if name.name in unknown:
            raise BadTemplateError(TemplateFailure(name.lineno, f'there is no "{name.name}"', _SEE_NAMES))


def _line_of(error: Exception) -> int:
    """Return the line of the template in which an error arose, 0 if that is not known."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == _FILE), 0)


def _failure_of(error: Exception) -> TemplateFailure:
    """Return what went wrong, in words that hold no value: those of most exceptions do."""
    line = _line_of(error)
    match error:
        case UndefinedError():
            return TemplateFailure(line, error.message or "cannot be used", _HANDLE_ABSENT)
        case SecurityError() | TemplateSyntaxError():
            return TemplateFailure(line, error.message or "cannot be used")
        case TooMuchError():
            return TemplateFailure(line, "does too much for one message", _MAKE_SHORTER)
        case RecursionError():
            return TemplateFailure(line, "calls itself without end")
    return TemplateFailure(line, f"cannot be rendered ({type(error).__name__})")


def _product_size(left: object, right: object) -> int:
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > NUMBER_BITS:
            raise TooMuchError
        return 0
    many, count = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(count, int):
        return 0
    return len(many) * count // CHARACTERS_PER_STEP if isinstance(many, str) else size_of(many) * count
