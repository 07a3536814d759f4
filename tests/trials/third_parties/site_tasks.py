from django_tasks import task


@task(queue_name="tasks")
def add(a: int, b: int) -> int:
    return a + b


@task(queue_name="tasks")
def fail() -> None:
    raise ValueError("as asked")
