"""`Query`: a question to whoever answers it, and the type of its answer."""

import inspect
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar, Unpack, cast

from pydantic import ConfigDict, TypeAdapter

from eventbus.errors import DeclarationError, SubjectError
from eventbus.event import Data
from eventbus.subject import check_event_name

__all__ = ("Query", "QuerySpec", "query_spec_of", "reply_adapter")

ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True, slots=True)
class QuerySpec:
    """What a query class declares about itself."""

    name: str
    """``resource.question``, like ``user.get``."""
    reply: object
    """The type of its answer."""


class Query(Data, Generic[ReplyT]):
    """A question, whose answer has a type: nothing is stored, and somebody must be there.

    ::

        class GetUser(Query[UserView], name="user.get"):
            user_id: str

        user = await events.request(GetUser(user_id="u-1"), timeout=2)   # a UserView

    The reply may be anything that pydantic reads and writes as JSON.

    Raises:
        DeclarationError: At class creation, for a wrong name, or without the type of the reply.
    """

    query_spec: ClassVar[QuerySpec | None] = None
    """What the class declared; None for a base class."""

    def __init_subclass__(cls, *, name: str | None = None, **config: Unpack[ConfigDict]) -> None:
        """Name the class keyword for type checkers; it is read once the fields are known."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        """Check the declaration."""
        super().__pydantic_init_subclass__()
        where = f"{cls.__module__}.{cls.__qualname__}"
        unknown = [keyword for keyword in kwargs if keyword != "name"]
        if unknown:
            raise DeclarationError(f"{where}: no class keyword {unknown[0]!r}")
        if "name" not in kwargs:
            cls.query_spec = None
            return
        try:
            name = check_event_name(cast("str", kwargs["name"]))
        except (SubjectError, TypeError) as exc:
            raise DeclarationError(f"{where}: {exc}") from exc
        cls.query_spec = QuerySpec(name, _reply_of(cls, where))


def _reply_of(query: type[Query[Any]], where: str) -> object:
    for base in inspect.getmro(query):
        generic = getattr(base, "__pydantic_generic_metadata__", {})
        if generic.get("origin") is Query:
            return generic["args"][0]
    raise DeclarationError(
        f"{where} doesn't say what its answer is; write class {query.__name__}(Query[Reply], ...)"
    )


def query_spec_of(query: type[Query[Any]]) -> QuerySpec:
    """Return what a query class declares.

    Raises:
        DeclarationError: The class has no ``name=``, so it is only a base for others.
    """
    if query.query_spec is None:
        raise DeclarationError(
            f"{query.__module__}.{query.__qualname__} has no name; "
            f'declare it as class {query.__name__}(Query[Reply], name="resource.question")'
        )
    return query.query_spec


@lru_cache(maxsize=1024)
def reply_adapter(query: type[Query[Any]]) -> TypeAdapter[Any]:
    """Return what reads and writes the answers to a query."""
    return TypeAdapter(cast("type[Any]", query_spec_of(query).reply))
