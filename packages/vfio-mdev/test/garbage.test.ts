/** Whatever a program hands in, the answer is a number, and all memory comes back when it ends. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Ioctl } from '../src/uapi.js';
import { machine } from './machine.js';

const numbers = [...new Set(Object.values(Ioctl))];
const number = fc.oneof(fc.constantFrom(...numbers), fc.integer({ min: 0x3b60, max: 0x3bb0 }), fc.nat(0xffff_ffff));
/** Small values that pass checks, addresses' halves, and anything. */
const word = fc.oneof(fc.nat(64), fc.constantFrom(0x1000, 0x10_0000, 0xffff_ffff, 0xffff_f000, 0x8000_0000), fc.nat(0xffff_ffff));
const step = fc.record({
  target: fc.nat(7),
  number,
  words: fc.array(word, { minLength: 1, maxLength: 16 }),
  /** Where the structure is: in memory, at its very end, or a number. */
  place: fc.constantFrom('here', 'edge', 'nowhere', 'value'),
  value: fc.oneof(fc.nat(200), fc.nat(Number.MAX_SAFE_INTEGER)),
  kind: fc.constantFrom('ioctl', 'ioctl', 'ioctl', 'pread', 'pwrite', 'mmap', 'close'),
});

test('random calls on container, group, device, cdev and iommufd never throw', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 60 }), fc.boolean(), (steps, legacy) => {
      const m = machine({ frames: 1024 });
      const { task, client } = m;
      const opened = legacy ? Object.values(client.openInContainer(m.nodes.group, m.name)) : [];
      const cdev = m.open(m.nodes.cdev);
      const iommufd = m.open('/dev/iommu');
      if (!legacy) expect(client.call(cdev, Ioctl.DEVICE_BIND_IOMMUFD, [16, 0, iommufd, 0]).result).toBe(0);
      const fds = [...opened, cdev, iommufd, client.eventfd(), m.open('/dev/vfio/vfio')];
      const edge = task.alloc(0x1000) + 0x1000;
      for (const { target, number: call, words, place, value, kind } of steps) {
        const fd = fds[target % fds.length]!;
        const data = Uint32Array.from(words);
        const at = place === 'here' ? client.at : place === 'edge' ? edge - data.byteLength : place === 'nowhere' ? 0x10 : value;
        if (place === 'here' || place === 'edge') task.writeStruct(at, data);
        const offset = (value % 12) * 2 ** 40 + (words[0]! % 0x5000);
        const result =
          kind === 'ioctl'
            ? task.ioctl(fd, call, at)
            : kind === 'pread'
              ? task.pread(fd, at, words[0]!, offset)
              : kind === 'pwrite'
                ? task.pwrite(fd, at, words[0]!, offset)
                : kind === 'mmap'
                  ? task.mmap(0, words[0]!, 3, 1, fd, offset - (offset % 4096))
                  : value % 8 === 0
                    ? task.close(fd)
                    : 0;
        expect(Number.isSafeInteger(result), `${kind} ${call}: ${result}`).toBe(true);
      }
      task.exit(0);
      expect([m.frames.used, m.attached.size, m.handlers.size, m.nodes.inUse]).toEqual([0, 0, 0, false]);
      expect(m.domains.every((domain) => domain.pages.size === 0 && domain.freed)).toBe(true);
    }),
    { numRuns: 300 },
  );
});
