/** The server that the vfio-user benchmark measures: DSA devices on sockets. Arguments: 'koffi' or 'net', then paths. */
import { BareDevice } from '@siov/stack/bare';
import { NetServer, VfioUserServer } from '@siov/vfio-user';

const [transport, ...paths] = process.argv.slice(2);
const memory = (): number => {
  globalThis.gc?.();
  return process.memoryUsage().rss;
};
const before = memory();
const devices = paths.map((path) => ({ path, device: new BareDevice() }));
const say = (): void => void process.stdout.write(`${JSON.stringify({ ready: true, rssPerDevice: (memory() - before) / paths.length })}\n`);
if (transport === 'net') {
  await NetServer.listen({ devices, peer: 'qemu' });
  say();
} else {
  const server = new VfioUserServer({ devices, peer: 'qemu' });
  say();
  // The line above has gone out when this begins: nothing else runs in this thread from now on.
  setTimeout(() => server.run(), 10);
}
