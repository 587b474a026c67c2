"""From the shown text of a name's value back to that value: numbers, text, lists, tuples, dicts, sets of these."""

from __future__ import annotations

import ast
import math

from memwatch._typing import Any, Union

_NAMES = {"nan": math.nan, "inf": math.inf, "nanj": complex(0, math.nan), "infj": complex(0, math.inf)}


def read(text: str) -> Any:
    """The value; the text itself when it is no literal, was cut short, or leaves out what lies too deep."""
    try:
        return ast.literal_eval(_Floats(text).visit(ast.parse(text, mode="eval")))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


class _Floats(ast.NodeTransformer):
    """Puts numbers where their text is no literal, or would lose the sign of a zero."""

    def __init__(self, text: str) -> None:
        self._text = text

    def visit_Call(self, node: ast.Call) -> ast.Call:
        return node  # set(), else none

    def visit_Name(self, node: ast.Name) -> ast.Constant:
        return ast.Constant(_NAMES[node.id]) if node.id in _NAMES else self._refused()

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return self._refused() if node.value is ... else node  # "..." stands for what is not shown

    def visit_BinOp(self, node: ast.BinOp) -> ast.Constant:
        return self._complex(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        operand = self.visit(node.operand)
        if isinstance(operand, ast.Constant) and type(operand.value) is complex:
            return self._complex(node)
        return ast.UnaryOp(node.op, operand)

    def _complex(self, node: Union[ast.BinOp, ast.UnaryOp]) -> ast.Constant:
        return ast.Constant(complex(ast.get_source_segment(self._text, node) or ""))

    def _refused(self) -> ast.Constant:
        raise ValueError(f"{self._text!r} is no literal")
