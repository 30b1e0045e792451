/** Block on fault in a guest: the device's page requests go through the host's fault queue and the VMM to the guest's kernel, and its answers back. */
import { Opcode, Status } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { MapFlag, Prot } from '@siov/layout/uapi';
import { describe, expect, test } from 'vitest';
import { hostFigures } from '../src/index.js';
import { bytesSource, MdevStack, type MdevStackOptions, openGuestQueue, Workload } from '../src/mdev.js';
import { sample as data } from './workload-suite.js';

const BLOCK = 2;
const world = (options: MdevStackOptions = {}) =>
  new MdevStack({ ramBytes: 128 << 20, guestRamBytes: 48 << 20, ...options, wq: { blockOnFault: true, ...options.wq } });
const idle = { step: () => 'wait' as const };

describe('absent pages', () => {
  test.each(['memmove', 'fill', 'copy-crc', 'dualcast'] as const)('%s into them: the device asks, the guest answers, nothing is resumed', (op) => {
    const stack = world();
    const program = new Workload({ source: bytesSource(data), op, size: 20_000, depth: 8, touch: false, flags: BLOCK }, openGuestQueue(stack));
    stack.guest.user.spawn(program);
    stack.run();
    expect(program.result).toMatchObject({ finished: true, wrong: 0, resumes: 0, statuses: { success: 5 } });
    expect(hostFigures(stack.host).pageRequests).toBeGreaterThan(0);
    expect([stack.vmm.refusals, stack.host.kernel.iommu.faults, stack.guest.iommu.faults]).toEqual([[], [], []]);
  });
  test('two virtual devices of one guest ask at once, each for its own pages', () => {
    const stack = world({ vdevs: 2 });
    const programs = [0, 1].map((vdev) => {
      const options = { source: bytesSource(data), op: 'memmove', size: 9000, depth: 4, touch: false, flags: BLOCK } as const;
      const program = new Workload(options, openGuestQueue(stack, vdev));
      stack.guest.user.spawn(program);
      return program;
    });
    stack.run();
    for (const { result } of programs) expect(result).toMatchObject({ finished: true, wrong: 0, resumes: 0 });
    expect(stack.vmm.refusals).toEqual([]);
  });
  test('a queue that the host configured without it refuses the flag, as its registers say', () => {
    const stack = world({ wq: { blockOnFault: false } });
    expect(stack.guestDrivers[0]!.capabilities.blockOnFault).toBe(false);
    expect(world().guestDrivers[0]!.capabilities.blockOnFault).toBe(true);
  });
});

/** A program of the guest whose descriptor waits for a page, since nobody answers yet. */
function blocked() {
  const stack = world();
  const task = stack.guest.user.spawn(idle);
  const client = new Client(task, openGuestQueue(stack)(task), { depth: 1, flags: BLOCK });
  const from = task.alloc(4096);
  const to = task.mmap(0, 4096, Prot.READ | Prot.WRITE, MapFlag.PRIVATE | MapFlag.ANONYMOUS);
  client.prepare(0, Opcode.memmove, hi(from), lo(from), hi(to), lo(to), 4096);
  client.submit(0);
  return { stack, task, client, to };
}
describe('what becomes of a descriptor that waits', () => {
  test('an address that the program does not have is answered Invalid Request', () => {
    const { stack, task, client, to } = blocked();
    task.munmap(to, 4096);
    stack.host.clock.wait(() => client.poll(0) !== 0);
    expect(client.poll(0)).toBe(Status.pageRequestInvalid | 0x80);
  });
  test('the program dies: everything is given back', () => {
    const { stack, task } = blocked();
    stack.guest.user.kill(task.pid);
    stack.run();
    expect([stack.guest.user.tasks.length, stack.vmm.refusals]).toEqual([0, []]);
  });
  test('the VMM dies: the host has all of it back', () => {
    const { stack } = blocked();
    stack.host.kernel.user.kill(stack.vmmTask.pid);
    stack.run();
    expect(stack.vdev.hostPasids.size).toBe(0);
    expect(stack.host.kernel.user.tasks).toEqual([]);
  });
  test('the host takes its queue back', () => {
    const { stack } = blocked();
    stack.unbind();
    expect(stack.vdev.hostPasids.size).toBe(0);
  });
});
