import { Opcode } from '@siov/idxd-device/spec';
import { Client } from '@siov/idxd-driver/client';
import { hi, lo } from '@siov/layout';
import { describe, expect, test } from 'vitest';
import { hostFigures } from '../src/index.js';
import { bytesSource, Host, MdevStack, type MdevStackOptions, openGuestQueue, Workload, type WorkloadOptions } from '../src/mdev.js';
import { sample as data, workloadSuite } from './workload-suite.js';

const world = (options: MdevStackOptions = {}) => new MdevStack({ ramBytes: 128 << 20, guestRamBytes: 48 << 20, ...options });
const start = (stack: MdevStack, options: Partial<WorkloadOptions> = {}, vdev = 0) => {
  const program = new Workload({ source: bytesSource(data), op: 'memmove', size: 4096, depth: 8, ...options }, openGuestQueue(stack, vdev));
  return { program, task: stack.guest.user.spawn(program) };
};
const idle = { step: () => 'wait' as const };

workloadSuite('an mdev in a guest', (options) => {
  const stack = world(options?.scatter === undefined ? {} : { ...options, guestHugePages: false });
  return { open: openGuestQueue(stack), spawn: (program) => stack.guest.user.spawn(program), run: (until) => stack.run(until) };
});

describe('memory of a guest', () => {
  test.each<[string, MdevStackOptions]>([
    ['guest memory in 4 KiB pages', { guestHugePages: false }],
    ['guest memory in 4 KiB pages at scattered places of the host', { guestHugePages: false, scatter: 7 }],
  ])('%s', (_name, options) => {
    const stack = world(options);
    const { program } = start(stack, { size: 20_000, batch: 3 });
    stack.run();
    expect(program.result).toMatchObject({ finished: true, wrong: 0, statuses: { success: 5 } });
  });
});

describe('the path of a descriptor', () => {
  test('leaves no trace outside the guest: neither exits nor system calls of the VMM grow with descriptors', () => {
    const cost = (bytes: number) => {
      const stack = world();
      const { program } = start(stack, { source: bytesSource(new Uint8Array(bytes).fill(7)), size: 1024 });
      let before = { traps: 0, calls: 0 };
      const now = () => ({ traps: stack.traps, calls: stack.host.kernel.user.counters.reduce((sum, n) => sum + n, 0) });
      stack.run(() => {
        if (before.traps === 0 && program.result.descriptors > 20) before = now();
        return program.result.finished;
      });
      const after = now();
      return { descriptors: program.result.descriptors, traps: after.traps - before.traps, calls: after.calls - before.calls };
    };
    const [few, many] = [cost(100 << 10), cost(1000 << 10)];
    expect(many.descriptors).toBe(10 * few.descriptors);
    expect([many.traps, many.calls]).toEqual([few.traps, few.calls]);
  });
});

/** A process of the guest with its queue open, one descriptor at a time. */
function openIn(stack: MdevStack, vdev = 0) {
  const task = stack.guest.user.spawn(idle);
  const queue = openGuestQueue(stack, vdev)(task);
  const client = new Client(task, queue, { depth: 1 });
  const submit = (opcode: number, from: number, to: number, bytes: number): number => {
    client.prepare(0, opcode, hi(from), lo(from), hi(to), lo(to), bytes);
    client.submit(0);
    stack.host.clock.wait(() => client.poll(0) !== 0);
    return client.poll(0);
  };
  return { task, queue, client, submit };
}

describe('completion interrupts', () => {
  test("a handle from the guest's driver: the guest's handler runs, and the message comes from an IMS slot of the host's device", () => {
    const stack = world();
    const [driver] = stack.guestDrivers;
    const task = stack.guest.user.spawn(idle);
    const queue = openGuestQueue(stack)(task);
    let taken = 0;
    const interrupt = driver!.completionInterrupt(driver!.wqs[0]!, task.mm.pasid, () => taken++)!;
    const client = new Client(task, queue, { depth: 1, interruptHandle: interrupt.handle });
    const sent = () => hostFigures(stack.host);
    const before = sent();
    for (let n = 1; n <= 3; n++) {
      client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
      client.submit(0);
      stack.host.clock.wait(() => client.poll(0) !== 0 && taken === n);
      expect([client.poll(0), taken]).toEqual([1, n]);
    }
    const after = sent();
    expect(after.interruptsIms! - before.interruptsIms!).toBe(3);
    expect(after.interruptsMsix! - before.interruptsMsix!).toBe(0);
    interrupt.free();
    client.prepare(0, Opcode.nop, 0, 0, 0, 0, 0);
    client.submit(0);
    stack.host.clock.wait(() => client.poll(0) !== 0);
    expect([client.poll(0), taken]).toEqual([0x19, 3]);
  });
});

describe('isolation', () => {
  /** The victim's page at an address at which the attacker has none. */
  const AT = 0x1234_5000;
  const victimOf = (task: ReturnType<typeof openIn>['task']) => {
    task.mmap(AT, 4096, 3, 0x32 | 0x8000);
    task.writeStruct(AT, new Uint8Array(4096).fill(0xaa));
    return () => task.readStruct(AT, new Uint8Array(4096)).every((byte) => byte === 0xaa);
  };
  const attack = (attacker: ReturnType<typeof openIn>): number[] => {
    const own = attacker.task.alloc(4096);
    return [attacker.submit(Opcode.memmove, own, AT, 64), attacker.submit(Opcode.crc, AT, AT, 64)];
  };
  test('the memory of another process of the guest: page fault, nothing written', () => {
    const stack = world();
    const whole = victimOf(stack.guest.user.spawn(idle));
    expect([attack(openIn(stack)), whole()]).toEqual([[0x83, 0x03], true]);
  });
  test('the memory of a process behind another virtual device: the same, though both are under way', () => {
    const stack = world({ vdevs: 2 });
    const other = openIn(stack, 1);
    const whole = victimOf(other.task);
    expect(attack(openIn(stack, 0))).toEqual([0x83, 0x03]);
    expect([whole(), other.submit(Opcode.crc, AT, AT, 64)]).toEqual([true, 1]);
    const hosts = stack.vdevs.flatMap((vdev) => [...vdev.hostPasids.values()]);
    expect(new Set(hosts).size).toBe(hosts.length);
  });
  test('two virtual devices at work do not disturb each other', () => {
    const stack = world({ vdevs: 2 });
    const programs = [start(stack, {}, 0), start(stack, { op: 'copy-crc', batch: 4 }, 1)].map(({ program }) => program);
    stack.run();
    for (const { result } of programs) expect(result).toMatchObject({ finished: true, wrong: 0, statuses: { success: 25 } });
  });
});

describe('what ends in the middle', () => {
  const big = { source: bytesSource(new Uint8Array(8 << 20).fill(0x5a)) };
  test("a process of the guest is killed: its PASID goes from the device, and the next process's work is whole", () => {
    const stack = world();
    const { program, task } = start(stack, big);
    stack.run(() => program.result.descriptors > 40);
    // The guest's IOMMU driver attaches nothing to the device itself, and its PASID to the process.
    expect([...stack.vdev.hostPasids.keys()]).toEqual([task.mm.pasid]);
    stack.guest.user.kill(task.pid);
    stack.run();
    expect([stack.vdev.hostPasids.size, stack.driver.wqs[0]!.enabled]).toEqual([0, false]);
    const next = start(stack);
    stack.run();
    expect(next.program.result).toMatchObject({ finished: true, wrong: 0, statuses: { success: 25 } });
  });
  test('the device is taken back: the work stops, the rest of guest and host goes on', () => {
    const stack = world();
    const { program, task } = start(stack, big);
    const witness = stack.guest.user.spawn(idle);
    const page = witness.alloc(4096);
    witness.writeStruct(page, new Uint8Array(4096).fill(7));
    stack.run(() => program.result.descriptors > 40);
    const { descriptors } = program.result;
    stack.unbind();
    stack.run();
    expect(program.result.finished).toBe(false);
    expect(program.result.descriptors - descriptors).toBeLessThanOrEqual(8);
    expect([witness.exited, witness.readStruct(page, new Uint8Array(4096)).every((byte) => byte === 7)]).toEqual([false, true]);
    expect([stack.driver.wqs[0]!.owner, stack.driver.wqs[0]!.enabled, stack.vdev.hostPasids.size]).toEqual([undefined, false, 0]);
    // The guest's driver finds no device any more: closing the queue, and opening it again, end.
    stack.guest.user.kill(task.pid);
    stack.run();
    expect(stack.guest.user.spawn(idle).open(stack.guestPaths[0]!, 2)).toBeLessThan(0);
    expect(witness.exited).toBe(false);
  });
  test.each([
    [1, true],
    [2, true],
    [1, false],
  ])('the VMM is killed, with %i devices, large pages %s: host frames and PASIDs return', (vdevs, guestHugePages) => {
    const stack = world({ vdevs, guestHugePages });
    const host = new Host({ ramBytes: 128 << 20 });
    host.kernel.bindIdxd(host.kernel.devices[0]!, { wqs: stack.driver.wqs.map((wq) => wq.config) });
    const programs = Array.from({ length: vdevs }, (_, n) => start(stack, big, n).program);
    stack.run(() => programs.every((program) => program.result.descriptors > 40));
    stack.host.kernel.user.kill(stack.vmmTask.pid);
    // The device's PASID table keeps a leaf that it needed once; a VM keeps its empty EPT root and two PASID directories, which a processor may name.
    expect(stack.host.frames.used - host.frames.used).toBe(1 + 3);
    const pasids = Array.from({ length: 8 }, () => stack.host.kernel.iommu.allocPasid());
    expect(pasids.sort()).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    for (const [n, vdev] of stack.vdevs.entries()) expect([vdev.hostPasids.size, stack.driver.wqs[n]!.enabled]).toEqual([0, false]);
    // What remains of the guest reaches nothing.
    stack.run();
    for (const { result } of programs) expect(result.finished).toBe(false);
    expect(stack.host.frames.used - host.frames.used).toBe(1 + 3);
  });
});
