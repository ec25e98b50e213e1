"""pymesos as a scheduler, then its operator calls, against CONTROL_PLANE."""
import os
import time
import urllib.parse

from addict import Dict
from outcome import Outcome
from pymesos import MesosOperatorMasterDriver, MesosSchedulerDriver, Scheduler

ADDRESS = urllib.parse.urlparse(os.environ['CONTROL_PLANE']).netloc
RUN = str(time.time_ns())
outcome = Outcome()


class Recorder(Scheduler):
    """Writes down what the driver reports."""

    def __init__(self):
        self.framework_id = self.server_info = None
        self.offers, self.statuses, self.errors = [], [], []

    def registered(self, driver, framework_id, server_info):
        def change():
            self.framework_id, self.server_info = framework_id, server_info
        outcome.note(change)

    def resourceOffers(self, driver, offers):
        outcome.note(lambda: self.offers.extend(offers))

    def offerRescinded(self, driver, offer_id):
        def change():
            self.offers = [offer for offer in self.offers if offer.id.value != offer_id.value]
        outcome.note(change)

    def statusUpdate(self, driver, status):
        outcome.note(lambda: self.statuses.append(status))

    def error(self, driver, message):
        outcome.note(lambda: self.errors.append(message))

    def states(self, name):
        return [status.state for status in self.statuses if status.task_id.value == task_id(name)]

    def last(self, name):
        return (self.states(name) or [None])[-1]


def task_id(name):
    return '%s-%s' % (name, RUN)


def task(name, command, offer):
    new = Dict(name=name)
    new.task_id.value = task_id(name)
    new.agent_id.value = offer.agent_id.value
    new.command.value = command
    new.resources = [{'name': 'cpus', 'type': 'SCALAR', 'scalar': {'value': 0.1}}, {'name': 'mem', 'type': 'SCALAR', 'scalar': {'value': 32}}]
    return new


seen = Recorder()
driver = MesosSchedulerDriver(seen, Dict(user='root', name='pymesos-check', hostname='check'), ADDRESS, use_addict=True)
driver.start()
if not outcome.check_soon('registered', lambda: seen.framework_id, lambda: seen.errors):
    outcome.end()
outcome.check('a framework id is given', bool(seen.framework_id.value))
outcome.check('the server says host, port and version', {'hostname', 'port', 'version'} <= set(seen.server_info), seen.server_info)
outcome.check_soon('an offer comes', lambda: seen.offers)
offer = seen.offers.pop(0)
outcome.check('it has cpus, mem and a hostname', {'cpus', 'mem'} <= {r.name for r in offer.resources} and bool(offer.hostname), offer)

good = ['ok0', 'ok1', 'ok2']
driver.launchTasks(offer.id, [task(name, 'true', offer) for name in good] + [task('bad', 'exit 4', offer), task('long', 'sleep 600', offer)])
for name in good:
    outcome.check_soon('task %s finishes' % name, lambda: seen.last(name) == 'TASK_FINISHED', lambda: seen.states(name))
outcome.check('its states come in order, each once', seen.states('ok0') == ['TASK_STARTING', 'TASK_RUNNING', 'TASK_FINISHED'], seen.states('ok0'))
outcome.check_soon('task bad fails', lambda: seen.last('bad') == 'TASK_FAILED', lambda: seen.states('bad'))
outcome.check_soon('task long runs', lambda: seen.last('long') == 'TASK_RUNNING', lambda: seen.states('long'))

if outcome.check_soon('what is left is offered', lambda: seen.offers):
    driver.declineOffer([offer.id for offer in seen.offers], filters=Dict(refuse_seconds=0))
    outcome.note(seen.offers.clear)
    outcome.check_soon('an offer comes after a decline without a filter', lambda: seen.offers)


def reconcile(claim, tasks, answers):
    before = len(seen.statuses)
    driver.reconcileTasks(tasks)
    outcome.check_soon(claim, lambda: any(answers(status) for status in seen.statuses[before:]), lambda: seen.statuses[before:])


def is_long(status):
    return status.task_id.value == task_id('long') and status.get('reason') == 'REASON_RECONCILIATION'


reconcile('reconcile answers for one task', [{'task_id': {'value': task_id('long')}}], is_long)
reconcile('reconcile answers for all tasks', [], is_long)
reconcile('reconcile answers for an unknown task', [{'task_id': {'value': task_id('unknown')}}],
          lambda status: status.state in ('TASK_LOST', 'TASK_UNKNOWN', 'TASK_GONE'))
driver.suppressOffers()
driver.reviveOffers()
driver.killTask(Dict(value=task_id('long')))
outcome.check_soon('a kill ends the task', lambda: seen.last('long') == 'TASK_KILLED', lambda: seen.states('long'))

operator = MesosOperatorMasterDriver(ADDRESS)
for call in ('getHealth', 'getVersion', 'getFlags', 'getState', 'getAgents', 'getFrameworks', 'getTasks', 'getRoles', 'getMaster',
             'getLoggingLevel', 'getWeights', 'getQuota', 'getMaintenanceStatus', 'getMaintenanceSchedule', 'getExecutors'):
    try:
        answer = getattr(operator, call)()
        outcome.check('operator call ' + call, isinstance(answer, dict) and len(answer) > 0, answer)
    except Exception as error:  # each call is a check of its own
        outcome.check('operator call ' + call, False, repr(error))


def listed(kind):
    answer = operator.getFrameworks()
    answer = answer.get('get_frameworks', answer)
    return [framework['framework_info']['id']['value'] for framework in answer.get(kind, [])]


own = seen.framework_id.value
outcome.check('the framework is listed', own in listed('frameworks'))
outcome.check('no errors', not seen.errors, seen.errors)
driver.stop()
outcome.check_soon('the framework is complete after stop', lambda: own in listed('completed_frameworks') and own not in listed('frameworks'))
outcome.end()
