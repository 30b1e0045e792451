import { Opcode } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { describe, expect, test } from 'vitest';
import { callsByName, hostFigures, plainCrc32c } from '../src/index.js';
import { bytesSource, openUacceQueue, UacceStack, Workload, type WorkloadOptions } from '../src/uacce.js';
import { sample as data, workloadSuite } from './workload-suite.js';

const shared = { wqs: [{ mode: 'shared', size: 16, threshold: 8, group: 0 }] } as const;
const run = (stack: UacceStack, options: Partial<WorkloadOptions> = {}, mode: 'dedicated' | 'shared' = 'dedicated') => {
  const program = new Workload({ source: bytesSource(data), op: 'memmove', size: 4096, depth: 8, ...options }, openUacceQueue(stack, mode));
  const task = stack.host.kernel.user.spawn(program);
  return { program, task };
};

for (const mode of ['dedicated', 'shared'] as const)
  workloadSuite(`uacce, a ${mode} queue`, (options) => {
    const stack = new UacceStack({ ramBytes: 96 << 20, ...(mode === 'shared' ? { config: shared } : {}), ...options });
    const { user } = stack.host.kernel;
    return { open: openUacceQueue(stack, mode), spawn: (program) => user.spawn(program), run: (until) => user.run(until) };
  });

test.each(['memmove', 'fill', 'copy-crc', 'dualcast'] as const)(
  '%s into absent pages with block on fault: the device asks for them, and nothing is resumed',
  (op) => {
    const stack = new UacceStack({ ramBytes: 64 << 20, config: { wqs: [{ mode: 'dedicated', size: 16, group: 0, blockOnFault: true }] } });
    const { program } = run(stack, { op, size: 20_000, touch: false, flags: 2 });
    stack.host.kernel.user.run();
    expect(program.result).toMatchObject({ finished: true, wrong: 0, resumes: 0, statuses: { success: 5 } });
    expect(hostFigures(stack.host).pageRequests).toBeGreaterThan(0);
  },
);

describe('isolation', () => {
  /** Two processes on one shared queue; what the first does to an address that only the second has. */
  const attack = (opcode: number): { record: number; victim: Uint8Array; before: Uint8Array } => {
    const stack = new UacceStack({ ramBytes: 64 << 20, config: shared });
    const { user } = stack.host.kernel;
    const idle = { step: () => 'wait' as const };
    const [one, two] = [user.spawn(idle, 'attacker'), user.spawn(idle, 'victim')];
    const queue = openUacceQueue(stack, 'shared')(one);
    openUacceQueue(stack, 'shared')(two);
    // The victim's page at an address at which the attacker has none.
    const at = 0x1234_5000;
    two.mmap(at, 4096, 3, 0x32 | 0x8000);
    const before = new Uint8Array(4096).fill(0xaa);
    two.writeStruct(at, before);
    const client = new Client(one, queue, { depth: 1 });
    const own = one.alloc(4096);
    client.prepare(0, opcode, hi(opcode === Opcode.memmove ? own : at), lo(opcode === Opcode.memmove ? own : at), hi(at), lo(at), 64);
    client.submit(0);
    stack.host.clock.wait(() => client.poll(0) !== 0);
    return { record: client.poll(0), victim: two.readStruct(at, new Uint8Array(4096)), before };
  };
  test.each([
    ['a write', Opcode.memmove, 0x83],
    ['a read', Opcode.crc, 0x03],
  ])("%s to another process's memory ends in a page fault, and nothing is read or written", (_name, opcode, status) => {
    const { record, victim, before } = attack(opcode);
    expect([record, Buffer.compare(victim, before)]).toEqual([status, 0]);
  });

  test('a neighbour killed in the middle of its work leaves nothing behind, and the other notices nothing', () => {
    const stack = new UacceStack({ ramBytes: 64 << 20, config: shared });
    const { user } = stack.host.kernel;
    const used = stack.host.frames.used;
    const one = run(stack, {}, 'shared');
    const two = run(stack, { source: bytesSource(new Uint8Array(8 << 20).fill(0x5a)) }, 'shared');
    user.run(() => two.program.result.descriptors > 40);
    user.kill(two.task.pid);
    user.run();
    expect(one.program.result).toMatchObject({ finished: true, wrong: 0 });
    expect([two.task.signal, stack.host.frames.used - used <= 2, stack.driver.wqs[0]!.clients]).toEqual(['SIGKILL', true, 0]);
  });

  test('unbinding the driver under a running process: its next store to the portal is SIGBUS, and the process dies alone', () => {
    const stack = new UacceStack({ ramBytes: 64 << 20 });
    const { program, task } = run(stack, { source: bytesSource(new Uint8Array(8 << 20)) });
    const witness = stack.host.kernel.user.spawn({ step: () => 'wait' });
    const page = witness.alloc(4096);
    witness.writeStruct(page, new Uint8Array(4096).fill(7));
    stack.host.kernel.user.run(() => program.result.descriptors > 40);
    stack.unbind();
    stack.host.kernel.user.run();
    expect([task.signal, program.result.finished, witness.exited]).toEqual(['SIGBUS', false, false]);
    expect(Buffer.compare(witness.readStruct(page, new Uint8Array(4096)), new Uint8Array(4096).fill(7))).toBe(0);
  });
});

test('the set-up of the native model is four kinds of system calls', () => {
  const stack = new UacceStack({ ramBytes: 64 << 20 });
  const task = stack.host.kernel.user.spawn({ step: () => 'wait' });
  openUacceQueue(stack, 'dedicated')(task);
  expect(callsByName(stack.host.kernel, { open: 0, mmap: 7, ioctl: 6 })).toEqual({ open: 1, mmap: 1, 'ioctl UACCE_CMD_START_Q': 1 });
});

test('the plain CRC that results are compared with is CRC-32C', () => {
  expect(plainCrc32c(new TextEncoder().encode('123456789'), 0, 9)).toBe(0xe306_9283);
});
