"""The section `gates`: a bound for any number of the validation, the verdict asked for, and what a failure does."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from surrogate_core.trust import Verdict
from surrogate_core.validation.gates import METRICS
from tasks.parsing import Number

_Share = Annotated[Number, Field(ge=0, le=1)]


class Gates(dict[str, Any]):
    """`on_fail`, and those bounds that are set, flat as in params.yaml: what is null there is not here."""

    KEYS: ClassVar = ("on_fail", "trust", *(f"{side}_{metric}" for metric in METRICS for side in ("min", "max")))
    EXPECTED: ClassVar = f"on_fail, trust, or min_ or max_ and one of {', '.join(METRICS)}"

    @property
    def on_fail(self) -> Literal["warn", "stop"]:
        """What optimize does about a surrogate that failed a gate, and tune about an optimum that did."""
        on_fail: Literal["warn", "stop"] = self.get("on_fail", "warn")
        return on_fail

    @property
    def trust(self) -> Verdict | None:
        """The least verdict on the optimum that passes; None where any does."""
        trust: Verdict | None = self.get("trust")
        return trust

    @property
    def bounds(self) -> dict[str, float]:
        return {name: bound for name, bound in self.items() if name not in ("on_fail", "trust")}

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        types: dict[str, Any] = {name: (_Share if "coverage" in name else Number) | None for name in cls.KEYS}
        types |= {"on_fail": Literal["warn", "stop"], "trust": Literal["supported", "doubtful"] | None}
        known = {
            name: core_schema.typed_dict_field(handler.generate_schema(kind), required=False)
            for name, kind in types.items()
        }
        shape = core_schema.typed_dict_schema(known, extra_behavior="forbid", config={"allow_inf_nan": False})
        return core_schema.no_info_after_validator_function(cls._of, shape)

    @classmethod
    def _of(cls, given: dict[str, Any]) -> "Gates":
        known = {"on_fail": "warn", **given}
        return cls({name: known[name] for name in cls.KEYS if known.get(name) is not None})
