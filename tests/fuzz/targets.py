"""What each wire format's codec is fuzzed with."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols.call import Codec, Identity, Wire
from app.protocols.infer_rest import InferRest
from app.protocols.npy import Npy
from app.protocols.wires import MAKERS
from app.tensors import Signature
from tests.fuzz import mutations
from tests.fuzz.bodies import BODIES, Body, npy
from tests.fuzz.models import SIGNATURES, TAKE_EXAMPLES
from tests.fuzz.mutations import Mutation, Steps

IDENTITY = Identity("m", 3, {"y": ["first", "second"]})

_MOST_STEPS = 4


class Target(NamedTuple):
    """One codec, for all signatures that it can be made for."""

    make: Callable[[Signature], Codec]
    bodies: Callable[[Signature], Iterator[Body]]
    mutations: Sequence[Mutation]
    signatures: Collection[str] = SIGNATURES


class Case(NamedTuple):
    """A body for one of `SIGNATURES`."""

    signature: str
    body: Body


def _of(wire: Wire) -> Target:
    known = mutations.MESSAGE if wire.name.startswith("GRPC") else mutations.JSON
    signatures = TAKE_EXAMPLES if wire.name.endswith(("CLASSIFY", "REGRESS")) else tuple(SIGNATURES)
    return Target(lambda signature: MAKERS[wire](IDENTITY, signature), BODIES[wire], known, signatures)


TARGETS = {wire.value: _of(wire) for wire in MAKERS if wire in BODIES} | {"npy": Target(Npy, npy, mutations.ANY)}


def new_codec(target: str, signature: str) -> Codec | None:
    """None where there is no sense in such requests for the signature."""
    try:
        return TARGETS[target].make(SIGNATURES[signature])
    except InvalidArgument:
        return None


codec_of = cache(new_codec)
"""One that has seen other requests before."""


@cache
def seeds_of(target: str) -> dict[str, list[Body]]:
    """By the signature."""
    found = {
        name: list(TARGETS[target].bodies(SIGNATURES[name]))
        for name in TARGETS[target].signatures
        if codec_of(target, name) is not None
    }
    return {name: bodies for name, bodies in found.items() if bodies}


def decoder_of(codec: Codec, length: str) -> Codec:
    """What reads bodies under a header that gives such a length.

    Raises:
        InvalidArgument: it is no length.
    """
    if not length:
        return codec
    assert isinstance(codec, InferRest)
    return codec.reading(length)


def cases(target: str) -> st.SearchStrategy[Case]:
    """Bodies that were well-formed before up to four mutations."""
    seeds = seeds_of(target)
    kinds = TARGETS[target].mutations
    names = sorted(seeds)

    def make(name: int, which: int, other: int, head: int, steps: Steps) -> Case:
        bodies = seeds[names[name]]
        body, from_other = bodies[which % len(bodies)], bodies[other % len(bodies)]
        return Case(names[name], mutated_body(body, steps, kinds, from_other, head))

    return st.builds(
        make,
        st.integers(0, len(names) - 1),
        st.integers(0, 63),
        st.integers(0, 63),
        st.integers(0, 3),
        st.lists(st.tuples(st.integers(0, len(kinds) - 1), st.integers(0, 2**32 - 1)), max_size=_MOST_STEPS),
    )


_ODD_LENGTHS = [
    "0",
    "1",
    "9" * 10,
    "-1",
    "+5",
    "1.0",
    "0x10",
    "\u0661",
    " 7",
    "2147483648",
    "00012",
    "18446744073709551615",
]


def mutated_body(body: Body, steps: Steps, kinds: Sequence[Mutation], other: Body, head: int) -> Body:
    """Of what begins with JSON that alone, with its length right again; or the tensors, or all, or the length."""
    if not body.length or body.length == "0" or head == 1:
        return body._replace(data=mutations.mutated(body.data, steps, kinds, other.data))
    length = int(body.length)
    json, tensors = body.data[:length], body.data[length:]
    if head == 2:
        return body._replace(data=json + mutations.mutated(tensors, steps, mutations.ANY, other.data))
    if head == 3:
        numbers = [str(max(0, length + seed % 9 - 4)) if seed % 2 else _ODD_LENGTHS[seed % 12] for _, seed in steps]
        return body._replace(length=(numbers or [body.length])[0])
    json = mutations.mutated(json, steps, kinds, other.data[: int(other.length or 0)])
    return Body(json + tensors, str(len(json)))
