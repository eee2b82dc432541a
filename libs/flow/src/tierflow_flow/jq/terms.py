"""The terms of jq: what operators stand between, and the patterns after `as`."""

from __future__ import annotations

from typing import Final

from tierflow_flow.jq import syntax as s
from tierflow_flow.jq.errors import JqSyntaxError
from tierflow_flow.jq.lexer import Inner, Token

KEYWORDS: Final = frozenset(
    ("def", "if", "then", "elif", "else", "end", "as", "reduce", "foreach", "try", "catch", "label", "and", "or", "import", "include", "__loc__")
)  # fmt: skip
_CONSTANTS: Final = {"null": None, "true": True, "false": False}


class Terms:
    """The half of the parser that reads terms; the other half reads operators."""

    tokens: list[Token]
    place: int

    def pipe(self) -> s.Node:
        """A whole expression."""
        raise NotImplementedError

    def no_comma(self) -> s.Node:
        """A value in an object."""
        raise NotImplementedError

    def binary(self, level: int) -> s.Node:
        """Operators from `level` on."""
        raise NotImplementedError

    def inner(self, tokens: Inner) -> s.Node:
        r"""What stands inside `\\( )` of a string."""
        raise NotImplementedError

    # Tokens.

    @property
    def now(self) -> Token:
        """The token to read next."""
        return self.tokens[self.place]

    def advance(self) -> Token:
        """Reads a token."""
        token = self.tokens[self.place]
        if token.kind != "end":
            self.place += 1
        return token

    def at(self, kind: str, text: str) -> bool:
        """Whether this token is next."""
        return self.now.kind == kind and self.now.text == text

    def take(self, kind: str, text: str) -> bool:
        """Reads the token if it is next."""
        if self.at(kind, text):
            self.place += 1
            return True
        return False

    def expect(self, kind: str, text: str = "") -> Token:
        """Reads a token that must be next."""
        if self.now.kind != kind or (text and self.now.text != text):
            raise self.unexpected(text or kind)
        return self.advance()

    def advance_if(self, *kinds: str) -> Token:
        """Reads a token of one of these kinds."""
        if self.now.kind not in kinds:
            raise self.unexpected(" or ".join(kinds))
        return self.advance()

    def expect_end(self) -> None:
        """Nothing may follow."""
        if self.now.kind != "end":
            raise self.unexpected("the end")

    def unexpected(self, wanted: str) -> JqSyntaxError:
        """The error of a token that is not the wanted one."""
        found = self.now.text or "the end"
        return JqSyntaxError(f"expected {wanted}, found {found}", self.now.position)

    # Terms.

    def postfix(self) -> s.Node:
        """A term and what follows it: fields, indexes, `?`."""
        node = self.term()
        while True:
            token = self.now
            if token.kind == "field":
                self.advance()
                node = s.Index(node, s.Literal(token.text[1:]))
            elif self.at("op", ".") and self.tokens[self.place + 1].kind == "string":
                self.advance()
                node = s.Index(node, self.string("text"))
            elif self.at("op", ".") and self.tokens[self.place + 1].text == "[":
                self.advance()
            elif self.take("op", "["):
                node = self.bracket(node)
            elif self.take("op", "?"):
                node = s.Try(node, None)
            elif self.at("op", "?//"):
                self.tokens[self.place] = Token("op", "//", token.position)
                node = s.Try(node, None)
            else:
                return node

    def bracket(self, target: s.Node) -> s.Node:
        """What follows `[` after a term."""
        if self.take("op", "]"):
            return s.Each(target)
        if self.take("op", ":"):
            stop = self.pipe()
            self.expect("op", "]")
            return s.Slice(target, None, stop)
        key = self.pipe()
        if self.take("op", ":"):
            end = None if self.at("op", "]") else self.pipe()
            self.expect("op", "]")
            return s.Slice(target, key, end)
        self.expect("op", "]")
        return s.Index(target, key)

    def term(self) -> s.Node:
        """A term by itself."""
        token = self.now
        read = _TERMS.get(token.kind)
        if read is None:
            raise self.unexpected("an expression")
        return read(self)

    def number(self) -> s.Node:
        """A number."""
        text = self.advance().text
        if text.isdigit() and len(text) <= 16:
            return s.Literal(int(text))
        value = float(text)
        value = min(value, 1.7976931348623157e308)
        return s.Literal(int(value) if value.is_integer() and abs(value) < 1e17 else value)

    def field(self) -> s.Node:
        """`.name`."""
        return s.Index(s.Identity(), s.Literal(self.advance().text[1:]))

    def variable(self) -> s.Node:
        """`$name`."""
        token = self.advance()
        if token.text == "$__loc__":
            return s.Literal({"file": "<top-level>", "line": 1})
        return s.Variable(token.text[1:])

    def string(self, form: str) -> s.Node:
        """A string; `form` writes the values in it."""
        pieces = self.expect("string").value
        if len(pieces) == 1:
            return s.Literal(pieces[0])
        return s.Text(tuple(self.inner(piece) if isinstance(piece, Inner) else piece for piece in pieces), form)

    def plain_string(self) -> s.Node:
        """A string without a format."""
        return self.string("text")

    def formatted(self) -> s.Node:
        """`@name`, or `@name "..."`."""
        name = self.advance().text[1:]
        return self.string(name) if self.now.kind == "string" else s.Format(name)

    def operator(self) -> s.Node:
        """Terms that begin with a sign."""
        token = self.advance()
        if token.text == "..":
            return s.Recurse()
        if token.text == ".":
            if self.now.kind == "string":
                return s.Index(s.Identity(), self.string("text"))
            return s.Identity()
        if token.text == "(":
            node = self.pipe()
            self.expect("op", ")")
            return node
        if token.text == "[":
            return self.array()
        if token.text == "{":
            return self.object()
        self.place -= 1
        raise self.unexpected("an expression")

    def array(self) -> s.Node:
        """What follows `[` where a term begins."""
        if self.take("op", "]"):
            return s.Array(None)
        items = self.pipe()
        self.expect("op", "]")
        return s.Array(items)

    def object(self) -> s.Node:
        """What follows `{`."""
        entries: list[tuple[s.Node, s.Node]] = []
        while not self.take("op", "}"):
            if entries:
                self.expect("op", ",")
                if self.take("op", "}"):
                    break
            entries.append(self.entry())
        return s.Object(tuple(entries))

    def entry(self) -> tuple[s.Node, s.Node]:
        """A key and its value."""
        token = self.now
        if token.kind == "variable":
            self.advance()
            return s.Literal(token.text[1:]), s.Variable(token.text[1:])
        key = self.key()
        if self.take("op", ":"):
            return key, self.no_comma()
        if self.now.kind == "op" and self.now.text in (",", "}") and token.text != "(":
            return key, s.Index(s.Identity(), key)
        raise self.unexpected(":")

    def key(self) -> s.Node:
        """The key of an entry."""
        token = self.now
        if token.kind == "word":
            self.advance()
            return s.Literal(token.text)
        if token.kind == "number":
            raise JqSyntaxError("keys are strings", token.position)
        if token.kind == "string":
            return self.string("text")
        if token.kind == "format":
            return self.formatted()
        self.expect("op", "(")
        key = self.pipe()
        self.expect("op", ")")
        return key

    def word(self) -> s.Node:
        """Constants, keywords, calls."""
        token = self.advance()
        if token.text in _CONSTANTS:
            return s.Literal(_CONSTANTS[token.text])
        special = _SPECIAL.get(token.text)
        if special is not None:
            return special(self)
        if token.text in KEYWORDS:
            self.place -= 1
            raise self.unexpected("an expression")
        arguments: list[s.Node] = []
        if self.take("op", "("):
            arguments.append(self.pipe())
            while self.take("op", ";"):
                arguments.append(self.pipe())
            self.expect("op", ")")
        return s.Call(token.text, tuple(arguments))

    def condition(self) -> s.Node:
        """What follows `if` or `elif`."""
        condition = self.pipe()
        self.expect("word", "then")
        yes = self.pipe()
        if self.take("word", "elif"):
            return s.If(condition, yes, self.condition())
        no: s.Node = s.Identity()
        if self.take("word", "else"):
            no = self.pipe()
        self.expect("word", "end")
        return s.If(condition, yes, no)

    def attempt(self) -> s.Node:
        """What follows `try`."""
        body = self.postfix()
        return s.Try(body, self.postfix() if self.take("word", "catch") else None)

    def fold(self) -> s.Node:
        """What follows `reduce`."""
        source, pattern = self.source()
        start = self.pipe()
        self.expect("op", ";")
        update = self.pipe()
        self.expect("op", ")")
        return s.Reduce(source, pattern, start, update)

    def scan(self) -> s.Node:
        """What follows `foreach`."""
        source, pattern = self.source()
        start = self.pipe()
        self.expect("op", ";")
        update = self.pipe()
        extract = self.pipe() if self.take("op", ";") else None
        self.expect("op", ")")
        return s.Foreach(source, pattern, start, update, extract)

    def source(self) -> tuple[s.Node, s.Pattern]:
        """`term as pattern (`."""
        source = self.postfix()
        self.expect("word", "as")
        pattern = self.pattern()
        self.expect("op", "(")
        return source, pattern

    def leave(self) -> s.Node:
        """What follows `break`."""
        return s.BreakTo(self.expect("variable").text[1:])

    # Patterns.

    def pattern(self) -> s.Pattern:
        """What stands after `as`."""
        if self.now.kind == "variable":
            return s.NamePattern(self.advance().text[1:])
        if self.take("op", "["):
            items = [self.pattern()]
            while self.take("op", ","):
                items.append(self.pattern())
            self.expect("op", "]")
            return s.ArrayPattern(tuple(items))
        self.expect("op", "{")
        entries = [self.pattern_entry()]
        while self.take("op", ","):
            entries.append(self.pattern_entry())
        self.expect("op", "}")
        return s.ObjectPattern(tuple(entries))

    def pattern_entry(self) -> tuple[s.Node, str, s.Pattern | None]:
        """A key of an object's pattern, the variable that it is bound to itself, the pattern of its value."""
        if self.now.kind == "variable":
            name = self.advance().text[1:]
            return s.Literal(name), name, self.pattern() if self.take("op", ":") else None
        key = self.key()
        self.expect("op", ":")
        return key, "", self.pattern()


_TERMS: Final = {
    "number": Terms.number,
    "field": Terms.field,
    "variable": Terms.variable,
    "format": Terms.formatted,
    "word": Terms.word,
    "string": Terms.plain_string,
    "op": Terms.operator,
}
_SPECIAL: Final = {
    "if": Terms.condition,
    "try": Terms.attempt,
    "reduce": Terms.fold,
    "foreach": Terms.scan,
    "break": Terms.leave,
}
