import { sprDsa } from '@siov/idxd-device';
import type { Scenario } from '../lab.js';
import { FIRST_SLOT } from '../qemu.js';
import { parseLspci } from '../report.js';

const script = `
lspci -Dnvvv | send lspci
for bar in 0 2; do send "resource$bar" < /sys/bus/pci/devices/0000:00:10.0/resource\${bar}_wc 2> /dev/null; done
send resource < /sys/bus/pci/devices/0000:00:10.0/resource
`;

/** Size in bytes of a line of sysfs' `resource`: first and last address, flags. */
const sizeOf = (line: string | undefined): number => {
  const [first = '0', last = '0'] = (line ?? '').split(' ');
  return Number(last) === 0 ? 0 : Number(BigInt(last) - BigInt(first)) + 1;
};

export const pci: Scenario = {
  id: 'a',
  name: 'pci',
  about: "lspci in the guest finds the device: its ids, BARs, MSI-X and function level reset are the profile's",
  async run(lab) {
    const server = await lab.serve('dsa-spr');
    const guest = await lab.guest({ servers: [server], script });
    const address = `0000:00:${FIRST_SLOT.toString(16)}.0`;
    const device = parseLspci(guest.lines('lspci')).get(address) ?? [];
    const has = (what: string, pattern: RegExp): void => {
      lab.holds(
        `lspci shows no ${what} (${pattern}):\n${device.join('\n')}`,
        device.some((line) => pattern.test(line)),
      );
    };
    lab.equal('class and ids', device[0]?.replace(/ \(.*/, ''), `0880: 8086:${sprDsa.deviceId.toString(16).padStart(4, '0')}`);
    has('register BAR', /^Region 0: Memory at [0-9a-f]+ \(64-bit, prefetchable\)/);
    has('portal BAR', /^Region 2: Memory at [0-9a-f]+ \(64-bit, prefetchable\)/);
    has('MSI-X table', new RegExp(`MSI-X: Enable. Count=${sprDsa.msixVectors}\\b`));
    has('function level reset', /FLReset\+/);
    const [registers, , portals] = guest.lines('resource');
    lab.holds(`BAR 0 has ${sizeOf(registers)} bytes: less than registers and MSI-X tables need`, sizeOf(registers) >= 0x10000);
    // DSA specification, "Portals": four pages of 4 KiB for each queue
    lab.equal('bytes of BAR 2', sizeOf(portals), sprDsa.wqs * 4 * 4096);
    lab.show(`${address} ${device[0]}`);
    for (const line of device.filter((text) => /MSI-X:/.test(text))) lab.show(line);
  },
};
