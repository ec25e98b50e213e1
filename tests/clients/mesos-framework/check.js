// mesos-framework as a scheduler against CONTROL_PLANE. It plans its tasks by itself: three, one of each ending.
'use strict';
const http = require('http');
const { Scheduler, Mesos } = require('mesos-framework');
const messages = Mesos.getMesos();
const server = new URL(process.env.CONTROL_PLANE);

let passed = 0, failed = 0;
function check(claim, holds, seen) {
  if (holds) { passed++; console.log('ok    ' + claim); } else { failed++; console.log('FAIL  ' + claim + ': ' + JSON.stringify(seen)); }
  return holds;
}
function end() {
  console.log(passed + ' passed, ' + failed + ' failed');
  process.exit(failed ? 1 : 0);
}
async function checkSoon(claim, condition, seen) {
  const end = Date.now() + 30000;
  while (Date.now() < end) {
    if (await condition()) return check(claim, true);
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  return check(claim, false, seen && seen());
}
const read = path => new Promise((resolve, reject) => {
  http.get({ host: server.hostname, port: server.port, path }, answer => {
    let body = '';
    answer.on('data', data => { body += data; });
    answer.on('end', () => { try { resolve(JSON.parse(body)); } catch (error) { reject(error); } });
  }).on('error', reject);
});

const task = (command, priority) => ({
  priority, instances: 1, allowScaling: true,
  commandInfo: new messages.CommandInfo(null, null, true, command, null, null),
  resources: { cpus: 0.1, mem: 32, ports: 1, disk: 0 },
});
const statuses = [], errors = [], sent = {};
let subscribed = null, offers = 0, heartbeats = 0;
const scheduler = new Scheduler({
  masterUrl: server.hostname, port: server.port, frameworkName: 'mesos-framework-check', frameworkFailoverTimeout: 10,
  logging: { level: 'error' }, restartStates: [],
  tasks: { good: task('true', 1), bad: task('exit 6', 2), long: task('sleep 600', 3) },
});
scheduler.on('subscribed', event => { subscribed = event; });
scheduler.on('offers', event => { offers += event.offers.length; });
scheduler.on('update', event => { statuses.push(event.status); });
scheduler.on('heartbeat', () => { heartbeats++; });
scheduler.on('error', error => { errors.push(error.message || error); });
for (const call of ['accept', 'decline', 'acknowledge', 'kill', 'reconcile', 'revive', 'teardown', 'message'])
  scheduler.on('sent_' + call, () => { sent[call] = (sent[call] || 0) + 1; });
const of = name => statuses.filter(status => status.task_id.value.includes(name));
const states = name => of(name).map(status => status.state);

setTimeout(() => { check('all done in time', false, statuses.map(s => [s.task_id.value, s.state])); end(); }, 150000);
scheduler.on('ready', async () => {
  scheduler.subscribe();
  if (!await checkSoon('subscribed', () => subscribed)) return end();
  check('a framework id is given', !!subscribed.frameworkId);
  check('a stream id is given', !!subscribed.mesosStreamId);
  await checkSoon('a heartbeat comes', () => heartbeats > 0);
  await checkSoon('an offer comes', () => offers > 0);
  await checkSoon('it is accepted', () => sent.accept > 0, () => sent);
  await checkSoon('good finishes', () => states('good').includes('TASK_FINISHED'), () => states('good'));
  await checkSoon('bad fails', () => states('bad').includes('TASK_FAILED'), () => states('bad'));
  await checkSoon('long runs', () => states('long').includes('TASK_RUNNING'), () => states('long'));
  check('starting comes before running', states('long').slice(0, 2).join() === 'TASK_STARTING,TASK_RUNNING', states('long'));
  // Starting and running of three tasks, the end of two: eight updates, all to be acknowledged.
  await checkSoon('every update is acknowledged', () => sent.acknowledge >= 8, () => sent);
  await checkSoon('what it does not need it declines', () => sent.decline > 0, () => sent);
  const long = of('long').pop();
  if (!long) return end();
  const before = statuses.length;
  scheduler.reconcile(long.task_id.value, long.agent_id.value);
  await checkSoon('reconcile answers', () => statuses.slice(before).some(status => status.reason === 'REASON_RECONCILIATION'));
  scheduler.message(long.agent_id.value, long.task_id.value, 'hello');
  await checkSoon('a message is accepted', () => sent.message > 0, () => sent);
  scheduler.revive();
  await checkSoon('a revive is accepted', () => sent.revive > 0, () => sent);
  scheduler.kill(long.task_id.value, long.agent_id.value);
  await checkSoon('a kill ends the task', () => states('long').includes('TASK_KILLED'), () => states('long'));
  const id = subscribed.frameworkId;
  check('the framework is listed', (await read('/frameworks')).frameworks.some(framework => framework.id === id));
  check('no errors', errors.length === 0, errors);
  scheduler.teardown();
  await checkSoon('a teardown is accepted', () => sent.teardown > 0);
  await checkSoon('the framework is complete', async () => (await read('/frameworks')).completed_frameworks.some(framework => framework.id === id));
  end();
});
