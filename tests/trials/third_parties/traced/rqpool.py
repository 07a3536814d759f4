"""OpenTelemetry in each worker, after its fork: the exporter has a thread."""

from django.conf import settings
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from django_rq_pool import hooks


@hooks.after_prefork
def start_tracing(worker):
    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"{settings.LISTENER}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    RedisInstrumentor().instrument()
