import { registerUacce } from '@siov/uacce';
import { UacceIoctl } from '@siov/uacce/uapi';

// The kernel's user-space door, as small as it can be (that of @siov/vfs fits), and a driver with one queue.
const nodes = new Map<string, { open(task: never, flags: number): unknown }>();
const sysfs = new Map<string, { show?(): string }>();
const kernel = {
  register: (path: string, device: { open(task: never, flags: number): unknown }) => void nodes.set(path, device),
  unregister: (path: string) => void nodes.delete(path),
  sysfs: { add: (path: string, attribute: { show?(): string }) => void sysfs.set(path, attribute), remove() {} },
};
const ops = { getQueue: () => 0, putQueue() {}, startQueue: () => 0, stopQueue() {}, isQueueUpdated: () => false };
const { path } = registerUacce({
  name: 'acc',
  id: 0,
  api: 'acc_v1',
  regionPages: [1, 0],
  ops,
  kernel,
  sva: { bind: () => ({ pasid: 5, unbind() {} }) },
});

const task = { pid: 1, mm: { pasid: -1 } };
const file = nodes.get(path)!.open(task as never, 2) as { ioctl(task: object, number: number, argument: number): number };
console.log(path, 'flags', sysfs.get('/sys/class/uacce/acc-0/flags')!.show!().trim(), 'pasid', task.mm.pasid);
console.log('start', file.ioctl(task, UacceIoctl.START_Q, 0), 'again', file.ioctl(task, UacceIoctl.START_Q, 0));
