"""avmesos as a scheduler against CONTROL_PLANE."""
import os
import threading
import time

import requests
from avmesos.client import MesosClient
from outcome import Outcome

URL = os.environ['CONTROL_PLANE']
RUN = str(time.time_ns())
ENDED = ('TASK_FINISHED', 'TASK_FAILED', 'TASK_KILLED')
outcome = Outcome()
drivers, offers, statuses, errors = [], [], [], []


def task_id(name):
    return '%s-%s' % (name, RUN)


def task(name, command, agent_id):
    return {'name': name, 'task_id': {'value': task_id(name)}, 'agent_id': agent_id, 'command': {'value': command},
            'resources': [{'name': 'cpus', 'type': 'SCALAR', 'scalar': {'value': 0.1}}, {'name': 'mem', 'type': 'SCALAR', 'scalar': {'value': 32}}]}


def states(name):
    return [status['state'] for status in statuses if status['task_id']['value'] == task_id(name)]


client = MesosClient(mesos_urls=[URL], frameworkName='avmesos-check')
client.on(MesosClient.SUBSCRIBED, lambda driver: outcome.note(lambda: drivers.append(driver)))
client.on(MesosClient.OFFERS, lambda new: outcome.note(lambda: offers.extend(new)))
client.on(MesosClient.UPDATE, lambda update: outcome.note(lambda: statuses.append(update['status'])))
client.on(MesosClient.ERROR, lambda message: outcome.note(lambda: errors.append(message)))
client.set_role('avmesos')
client.set_failover_timeout(10)
client.set_checkpoint(False)
threading.Thread(target=client.register, daemon=True).start()
if not outcome.check_soon('subscribed', lambda: drivers, lambda: errors):
    outcome.end()
driver = drivers[0]
outcome.check('framework id and stream id are given', bool(client.frameworkId) and bool(client.streamId))
if not outcome.check_soon('an offer comes', lambda: offers):
    outcome.end()
offer = offers.pop(0)
agent_id = offer.get_offer()['agent_id']
offer.accept([task('ok1', 'true', agent_id), task('ok2', 'true', agent_id), task('bad', 'exit 5', agent_id), task('long', 'sleep 600', agent_id)],
             {'filters': {'refuse_seconds': 0}})
outcome.check_soon('ok1 finishes', lambda: 'TASK_FINISHED' in states('ok1'), lambda: states('ok1'))
outcome.check_soon('ok2 finishes', lambda: 'TASK_FINISHED' in states('ok2'), lambda: states('ok2'))
outcome.check('the states come in order, each once', states('ok1') == ['TASK_STARTING', 'TASK_RUNNING', 'TASK_FINISHED'], states('ok1'))
outcome.check_soon('bad fails', lambda: 'TASK_FAILED' in states('bad'), lambda: states('bad'))
outcome.check_soon('long runs', lambda: 'TASK_RUNNING' in states('long'), lambda: states('long'))
if outcome.check_soon('what is left is offered', lambda: offers):
    declined = list(offers)
    outcome.note(offers.clear)
    for offer in declined:
        offer.decline({'filters': {'refuse_seconds': 0.1}})
    outcome.check_soon('an offer comes after a decline with a short filter', lambda: offers)

before = len(statuses)
driver.reconcile([{'agent_id': agent_id, 'task_id': {'value': task_id('long')}}])
outcome.check_soon('reconcile answers', lambda: any(status.get('reason') == 'REASON_RECONCILIATION' for status in statuses[before:]))
driver.suppress()
driver.revive()
driver.kill(agent_id['value'], task_id('long'))
outcome.check_soon('a kill ends the task', lambda: 'TASK_KILLED' in states('long'), lambda: states('long'))
outcome.check('no errors', not errors, errors)


def unfinished():
    listed = requests.get(URL + '/tasks', timeout=10).json()['tasks']
    return [t for t in listed if t['framework_id'] == client.frameworkId and t['state'] not in ENDED]


outcome.check_soon('no task is listed as running', lambda: not unfinished(), unfinished)
client.stop = True
driver.tearDown()
outcome.check_soon('the framework is complete after its teardown', lambda: client.frameworkId in
                   [f['id'] for f in requests.get(URL + '/frameworks', timeout=10).json()['completed_frameworks']])
outcome.end()
