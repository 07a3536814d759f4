"""A worker is made of a project's class, whatever its constructor takes."""

from __future__ import annotations

import logging

import pytest
from rq import Queue, Worker
from rq.serializers import JSONSerializer

import own_classes
from django_rq_pool.config.constructors import construct

NAME = "shop.host.high.1"


def make(worker_class, valkey, **given):
    queue = Queue("high", connection=valkey, serializer=JSONSerializer)
    given = {"name": NAME, "connection": valkey, "prepare_for_work": True, **given}
    return construct(worker_class, [queue], **given)


@pytest.mark.parametrize("worker_class", [Worker, *own_classes.CONSTRUCTORS])
def test_a_worker_has_all_that_its_constructor_does_not_take(valkey, worker_class):
    worker = make(
        worker_class,
        valkey,
        worker_ttl=300,
        job_class=own_classes.TenantJob,
        queue_class=Queue,
        serializer="json",
        exception_handlers=[print],
    )
    assert worker.name == NAME
    assert worker.connection is valkey
    assert worker.worker_ttl == 300
    assert worker.job_class is own_classes.TenantJob
    assert worker.queue_names() == ["high"]
    assert worker.serializer is JSONSerializer
    assert worker._exc_handlers == [print]


@pytest.mark.parametrize("worker_class", [Worker, *own_classes.CONSTRUCTORS])
def test_what_is_none_is_left_to_rq(valkey, worker_class):
    worker = make(worker_class, valkey, worker_ttl=None, exception_handlers=None, serializer=None)
    assert worker.worker_ttl == (300 if worker_class is own_classes.NamesItself else 420)
    assert worker._exc_handlers == []


def test_a_worker_that_names_itself_is_called_as_the_pool_calls_it(valkey, caplog):
    worker = make(own_classes.NamesItself, valkey)
    assert worker.name == NAME
    assert valkey.client_getname() == NAME
    assert "own_classes.NamesItself calls its worker " in caplog.text


def test_a_name_that_cannot_be_changed_is_refused_in_words(valkey):
    with pytest.raises(TypeError, match=r"KeepsItsName: its name is 'mine' and cannot be changed"):
        make(own_classes.KeepsItsName, valkey)


def test_an_option_that_cannot_be_honoured_is_told(valkey, caplog):
    with caplog.at_level(logging.WARNING):
        make(own_classes.CannotLiveLonger, valkey, worker_ttl=300)
    assert "own_classes.CannotLiveLonger takes no worker_ttl, so that 300 has no" in caplog.text


def test_where_rq_keeps_something_under_another_name_it_is_set_there(valkey):
    worker = make(own_classes.TakesFew, valkey, work_horse_killed_handler=print)
    assert worker._work_horse_killed_handler is print
