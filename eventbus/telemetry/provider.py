"""`OwnProvider`: the tracer provider that `eventbus.telemetry.tracing.setup` makes."""

from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from typing_extensions import override

__all__ = ("OwnProvider",)


class OwnProvider(TracerProvider):
    """A provider that can tell whether its spans go nowhere but to its own exporter."""

    is_shared = False
    """Whether an application has added a processor, which has to see whole spans."""

    @override
    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Tell this one of the spans too."""
        self.is_shared = True
        super().add_span_processor(span_processor)

    def export_to(self, processor: SpanProcessor) -> None:
        """Have the spans exported; takes quick ones too."""
        super().add_span_processor(processor)
