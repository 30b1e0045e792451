import { evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import { Event, events, Party } from '../src/events.js';
import { Errno, errnoName, io, ior, iow, iowr, MapFlag, Open, PENDING, Poll, Prot } from '../src/uapi.js';

const { here, why } = kernelHeader('linux/errno.h');
if (!here) console.log(`left out: errno, mmap and ioctl numbers against the kernel's headers (${why})`);

test.skipIf(!here).each([
  ['errno', Errno, ['linux/errno.h'], ''],
  ['mmap protection', Prot, ['linux/mman.h'], 'PROT_'],
  ['mmap flags', MapFlag, ['linux/mman.h'], 'MAP_'],
  ['open flags', Open, ['linux/fcntl.h'], 'O_'],
  ['poll bits', Poll, ['linux/poll.h'], 'POLL'],
] as const)("%s equal the kernel's", (_name, ours, headers, prefix) => {
  const names = Object.keys(ours);
  expect(Object.values(ours)).toEqual(
    evaluate(
      headers,
      names.map((n) => prefix + n),
    ),
  );
});
test.skipIf(!here)('ioctl numbers are made as the kernel makes them', () => {
  expect([io('W', 0), iow('H', 10, 4), ior('W', 3, 8), iowr('H', 11, 16)]).toEqual(
    evaluate(['linux/ioctl.h'], ["_IO('W', 0)", "_IOW('H', 10, int)", "_IOR('W', 3, unsigned long)", "_IOWR('H', 11, char[16])"]),
  );
});
test('errno has names, and a pending call is no errno', () => {
  expect([errnoName(-22), errnoName(95), errnoName(-9999)]).toEqual(['EINVAL', 'EOPNOTSUPP', 'errno 9999']);
  expect(PENDING).toBeLessThan(-4095);
});
test('every event has a number of its own, a party and at most four arguments', () => {
  expect(Object.values(Event).sort((a, b) => a - b)).toEqual(events.map((_, i) => i));
  for (const row of events) {
    expect(Object.values(Party)).toContain(row.party);
    expect(row.args.length).toBeLessThanOrEqual(4);
  }
});
