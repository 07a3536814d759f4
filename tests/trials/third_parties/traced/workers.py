"""A span around each job, sent before the work horse leaves."""

from opentelemetry import trace
from rq import Worker


class TracedWorker(Worker):
    def perform_job(self, job, queue, execution):
        try:
            with trace.get_tracer("rq").start_as_current_span(f"job {job.func_name}"):
                return super().perform_job(job, queue, execution)
        finally:
            trace.get_tracer_provider().force_flush()  # a horse leaves by os._exit
