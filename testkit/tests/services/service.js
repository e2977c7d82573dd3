const Docker = require('dockerode'), net = require('net'), tar = require('tar-stream'), { PassThrough } = require('stream');
const sleep = ms => new Promise(r => setTimeout(r, ms));
const check = (ok, what) => { if (!ok) throw new Error(what); };
(async () => {
  const docker = new Docker({ socketPath: process.argv[2] });
  const events = [];
  const heard = await docker.getEvents({ filters: { container: ['pgjs'] } });
  heard.on('data', d => String(d).trim().split('\n').forEach(l => events.push(JSON.parse(l).Action)));
  const c = await docker.createContainer({ name: 'pgjs', Image: 'service', ExposedPorts: { '5432/tcp': {} },
    HostConfig: { PortBindings: { '5432/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] } } });
  await c.start();
  const port = (await c.inspect()).NetworkSettings.Ports['5432/tcp'][0].HostPort;
  // A server that is ready answers a request for TLS with one letter.
  const ready = () => new Promise(done => {
    const s = net.connect(port, '127.0.0.1');
    s.on('connect', () => s.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])));
    s.on('data', d => { s.destroy(); done('NS'.includes(String(d)[0])); });
    s.on('error', () => done(false)); s.on('close', () => done(false));
  });
  for (let i = 0; ; i++) { if (await ready()) break; check(i < 300, 'the service never answered'); await sleep(200); }
  const exec = async cmd => {
    const e = await c.exec({ Cmd: cmd, AttachStdout: true, AttachStderr: true });
    const s = await e.start({});
    const out = new PassThrough(); let text = '';
    out.on('data', d => text += d);
    docker.modem.demuxStream(s, out, process.stderr);
    await new Promise(r => s.on('end', r));
    return [(await e.inspect()).ExitCode, text];
  };
  const psql = (...more) => exec(['psql', '-h', '127.0.0.1', '-U', 'postgres', '-At', ...more]);
  check(String(await psql('-c', 'select 6*7')) === '0,42\n', 'exec');
  check((await psql('-c', 'select nothing'))[0] === 1, 'an exit code');
  const pack = tar.pack();
  pack.entry({ name: 'q.sql' }, "select 'cop' || 'ied';\n");
  pack.finalize();
  await c.putArchive(pack, { path: '/tmp' });
  check(String(await psql('-f', '/tmp/q.sql')) === '0,copied\n', 'copy in');
  const archive = await c.getArchive({ path: '/tmp/q.sql' });
  const names = [], extract = tar.extract();
  extract.on('entry', (h, s, next) => { names.push(h.name + ':' + h.size); s.on('end', next); s.resume(); });
  await new Promise((r, f) => { extract.on('finish', r); extract.on('error', f); archive.pipe(extract); });
  check(String(names) === 'q.sql:23', 'copy out: ' + names);
  const logs = String(await c.logs({ stdout: true, stderr: true }));
  check(logs.includes('ready to accept connections'), 'logs: ' + logs);
  const stats = await c.stats({ stream: false });
  check(stats.memory_stats.usage > 1e6 && stats.precpu_stats.system_cpu_usage > 0 && stats.networks.eth0.rx_bytes > 0, 'stats');
  const top = await c.top();
  check(top.Processes.some(p => p.join(' ').includes('checkpointer')), 'top');
  await c.stop({ t: 10 });
  check((await c.wait()).StatusCode === 0, 'a clean stop');
  await c.remove({ v: true });
  for (let i = 0; !events.includes('destroy'); i++) { check(i < 50, 'events: ' + events); await sleep(100); }
  for (const want of ['create', 'start', 'die', 'stop', 'destroy']) check(events.includes(want), 'events: ' + events);
  check((await docker.listContainers({ all: true })).length === 0, 'cleanup');
  heard.destroy();
  console.log('done');
})().catch(e => { console.error(e); process.exit(1); });
