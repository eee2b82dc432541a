"""Messages from descriptors: made from nothing, or valid ones mutated, and their coded form spoilt."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tierflow_testing.fuzzing.values import TEXTS, Pools, scalar

MOST_COPIES = 1_500
"""Elements to which a repeated field is grown: more than any list of the contract may have."""
DEEPEST = 5
"""Levels to which messages are made from nothing."""


def is_map(field: Any) -> bool:
    """Whether a field is a map."""
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


class Maker:
    """Makes and mutates messages; all chance comes from `chance`, existing ids from `pools`."""

    def __init__(self, chance: random.Random, pools: Pools) -> None:
        self.chance = chance
        self.pools = pools
        self._mutations: Sequence[Callable[[Message], None]] = (
            self._clear, self._set, self._set, self._set, self._grow, self._remake, self._choose_other, self._empty, self._swap, self._nest,
        )  # fmt: skip

    def mutated(self, seed: Message) -> Message:
        """A copy of a valid message with one to four things wrong, somewhere in it."""
        message = type(seed)()
        message.CopyFrom(seed)
        for _ in range(self.chance.choice((1, 1, 1, 2, 3, 4))):
            self.chance.choice(self._mutations)(self._somewhere(message))
        return message

    def made(self, kind: Descriptor, depth: int = 0) -> Message:
        """A message of a type, from nothing."""
        message: Message = GetMessageClass(kind)()
        for field in kind.fields:
            if self.chance.random() < (0.6 if depth < 2 else 0.3):
                self._fill(message, field, depth)
        return message

    # --- filling ---

    def _fill(self, message: Message, field: Any, depth: int) -> None:
        if field.message_type is not None and not is_map(field) and depth >= DEEPEST:
            return
        if is_map(field):
            self._fill_map(message, field, self.chance.choice((1, 1, 2, 5)), depth)
        elif field.is_repeated:
            for _ in range(self.chance.choice((0, 1, 1, 2, 3))):
                self._append(message, field, depth)
        elif field.message_type is not None:
            made = self.made(field.message_type, depth + 1)
            getattr(message, field.name).CopyFrom(made)
        else:
            setattr(message, field.name, scalar(self.chance, field, self.pools))

    def _append(self, message: Message, field: Any, depth: int) -> None:
        items = getattr(message, field.name)
        if field.message_type is not None:
            items.add().CopyFrom(self.made(field.message_type, depth + 1))
        else:
            items.append(scalar(self.chance, field, self.pools))

    def _fill_map(self, message: Message, field: Any, count: int, depth: int) -> None:
        items = getattr(message, field.name)
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        for number in range(count):
            name = scalar(self.chance, key, self.pools) if count < 10 else f"k{number}"
            if value.message_type is not None:
                items[name].CopyFrom(self.made(value.message_type, depth + 1))
            else:
                items[name] = scalar(self.chance, value, self.pools)

    # --- places ---

    def _somewhere(self, message: Message) -> Message:
        """The message itself or one within it; the outer ones more often."""
        places = [message]
        for place in places:
            if len(places) > 200:
                break
            places.extend(_within(place))
        return (
            places[min(int(self.chance.paretovariate(0.9)) - 1, len(places) - 1)]
            if self.chance.random() < 0.5
            else self.chance.choice(places)
        )

    def _field(self, message: Message, wanted: Callable[[Any], bool]) -> Any:
        fields = [field for field in message.DESCRIPTOR.fields if wanted(field)]
        return self.chance.choice(fields) if fields else None

    # --- mutations ---

    def _clear(self, message: Message) -> None:
        """A part is missing."""
        present = message.ListFields()
        if present:
            message.ClearField(self.chance.choice(present)[0].name)

    def _set(self, message: Message) -> None:
        """A value is wrong."""
        present = [field for field, _ in message.ListFields()]
        field = (
            self.chance.choice(present)
            if present and self.chance.random() < 0.7
            else self._field(message, lambda each: True)
        )
        if field is None:
            return
        if field.message_type is not None or field.is_repeated:
            self._fill(message, field, 2)
        else:
            setattr(message, field.name, scalar(self.chance, field, self.pools))

    def _grow(self, message: Message) -> None:
        """A list or map is far too long."""
        field = self._field(message, lambda each: each.is_repeated)
        if field is None:
            return
        count = self.chance.choice((10, 40, 300, MOST_COPIES))
        if is_map(field):
            self._fill_map(message, field, count, DEEPEST)
            return
        items = getattr(message, field.name)
        if not items:
            self._append(message, field, 3)
        one = items[0]
        if isinstance(one, Message) and one.ByteSize() * count > 1_000_000:
            count = max(1, 1_000_000 // one.ByteSize())
        items.extend([one] * count)

    def _remake(self, message: Message) -> None:
        """A part is anything of its type."""
        field = self._field(message, lambda each: each.message_type is not None and not each.is_repeated)
        if field is not None:
            getattr(message, field.name).CopyFrom(self.made(field.message_type, 1))

    def _choose_other(self, message: Message) -> None:
        """Another member of a oneof than the one that was meant."""
        groups = [group for group in message.DESCRIPTOR.oneofs if len(group.fields) > 1]
        if groups:
            self._fill(message, self.chance.choice(self.chance.choice(groups).fields), 2)

    def _empty(self, message: Message) -> None:
        """A part is there and empty."""
        field = self._field(message, lambda each: each.message_type is not None and not each.is_repeated)
        if field is not None:
            message.ClearField(field.name)
            getattr(message, field.name).SetInParent()

    def _swap(self, message: Message) -> None:
        """Two texts are in each other's place."""
        texts = [field for field, value in message.ListFields() if isinstance(value, str)]
        if len(texts) > 1:
            one, other = self.chance.sample(texts, 2)
            first, second = getattr(message, one.name), getattr(message, other.name)
            setattr(message, one.name, second)
            setattr(message, other.name, first)

    def _nest(self, message: Message) -> None:
        """A message that may contain itself does so, many times."""
        name = message.DESCRIPTOR.full_name
        depth = self.chance.choice((5, 40, 90, 98))
        if name == "google.protobuf.Value":
            inner: Any = message
            for _ in range(depth // 2):
                inner = inner.list_value.values.add()
            inner.string_value = self.chance.choice(TEXTS)
        elif name == "tierflow.common.v1.Failure":
            inner = message
            for _ in range(depth):
                inner = inner.cause
                inner.code = 19
        else:
            self._set(message)


def _within(message: Message) -> list[Message]:
    """The messages directly within a message."""
    found: list[Message] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if is_map(field):
            if field.message_type.fields_by_name["value"].message_type is not None:
                found.extend(value.values())
        elif field.is_repeated:
            found.extend(value[:3])
        else:
            found.append(value)
    return found


def spoilt(chance: random.Random, coded: bytes) -> bytes:
    """The coded form of a message, damaged: cut off, flipped, with foreign or overlong parts, or with text that is not UTF-8."""
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: coded[: chance.randint(0, len(coded))],
        lambda: _flipped(chance, coded),
        lambda: coded + b"\xfa\x3f\x03abc",  # an unknown field, which is allowed
        lambda: coded + b"\x0a\xff\xff\xff\xff\x0f",  # a length far beyond the end
        lambda: coded + b"\x0b" * 150,  # groups that open and never close
        lambda: coded + b"\x0a\x02\xc3\x28",  # field 1 as text that is not UTF-8
        lambda: coded + b"\x0a\x03\xed\xa0\x80",  # a lone surrogate
        lambda: _not_utf8(chance, coded),
        lambda: coded + b"\x07",  # a wire type that does not exist
        lambda: b"\xff" * 12 + coded,  # a tag that is too long
        lambda: chance.randbytes(chance.randint(1, 200)),
        lambda: coded + coded,  # merged with itself, which is allowed
        lambda: coded + _nested(chance.choice((1, 2, 3, 8)), chance.choice((50, 120, 5_000))),
    )
    return chance.choice(ways)()


def _flipped(chance: random.Random, coded: bytes) -> bytes:
    if not coded:
        return b"\x80"
    damaged = bytearray(coded)
    for _ in range(chance.choice((1, 1, 2, 8))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _nested(number: int, depth: int) -> bytes:
    """A field within itself, `depth` times."""
    coded = b""
    for _ in range(depth):
        size, length = len(coded), bytearray()
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        coded = bytes((number << 3 | 2, *length, size)) + coded
    return coded


def _not_utf8(chance: random.Random, coded: bytes) -> bytes:
    """One byte of what looks like text is replaced by one that no UTF-8 text has."""
    places = [place for place, byte in enumerate(coded) if 97 <= byte <= 122]
    if not places:
        return coded + b"\xff"
    place = chance.choice(places)
    return coded[:place] + b"\xff" + coded[place + 1 :]
