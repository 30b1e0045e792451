import { gnrD, type Profile, sprDsa } from '@siov/idxd-device';
import { iax2, sprIax } from '@siov/idxd-device/iax';
import { Opcode } from '@siov/idxd-device/spec';
import type { Scenario } from '../lab.js';
import { FIRST_SLOT } from '../qemu.js';

const script = `
idxd
eventually 5 test -e /sys/bus/dsa/devices/iax3
for device in dsa0 dsa1 iax2 iax3; do
  for file in /sys/bus/dsa/devices/$device/*; do
    [ -f $file ] && echo "\${file##*/} $(cat $file 2> /dev/null)"
  done | send $device
  ls -d /sys/bus/dsa/devices/$device/* | sed -n 's/.*\\///; s/[0-9]*\\.[0-9]*$//p' | sort | uniq -c | send $device.parts
done
readlink /sys/bus/pci/devices/0000:00:10.0/driver | send driver
`;

/**
 * Documentation/ABI/stable/sysfs-driver-dma-idxd: what each attribute says of a device that nobody has configured. Of analytics accelerators some are
 * hidden (undefined), and the driver enables them by itself for iaa_crypto.
 */
const attributes = (profile: Profile, analytics: boolean): Record<string, string | undefined> => ({
  version: `0x${profile.version.toString(16)}`,
  max_groups: `${profile.groups}`,
  max_work_queues: `${profile.wqs}`,
  max_work_queues_size: `${profile.totalWqSize}`,
  max_engines: `${profile.engines}`,
  max_read_buffers: analytics ? undefined : `${profile.readBuffers}`,
  read_buffer_limit: analytics ? undefined : '0',
  max_batch_size: analytics ? undefined : `${2 ** profile.maxBatchShift}`,
  iaa_cap: analytics && profile.version >= 0x200 ? `0x${profile.iaaCapabilities!.toString(16)}` : undefined,
  max_transfer_size: `${2 ** profile.maxTransferShift}`,
  // INTEL-SA-01084: of Sapphire Rapids' devices the driver does not show that they take batches.
  op_cap: bitmap(profile.operations.filter((code) => profile.deviceId !== sprDsa.deviceId || code !== Opcode.batch)),
  errors: bitmap([]),
  configurable: '1',
  state: analytics ? 'enabled' : 'disabled',
  clients: '0',
});
/** 256 bits as the kernel prints them: words of 32 bits, the highest first. */
function bitmap(bits: readonly number[]): string {
  const words = new Uint32Array(8);
  for (const bit of bits) words[bit >>> 5]! |= 1 << (bit & 31);
  return [...words]
    .reverse()
    .map((word) => word.toString(16).padStart(8, '0'))
    .join(',');
}

export const probe: Scenario = {
  id: 'b',
  name: 'probe',
  about: 'idxd takes DSA and IAX of two versions each, and says of each what its profile says',
  async run(lab) {
    const servers = [await lab.serve('dsa-spr'), await lab.serve('dsa-gnrd'), await lab.serve('iax'), await lab.serve('iax-2.0')];
    const guest = await lab.guest({ servers, script });
    lab.equal('driver of the function', guest.text('driver').split('/').at(-1), 'idxd');
    for (const [slot, [device, profile]] of (
      [
        ['dsa0', sprDsa],
        ['dsa1', gnrD],
        ['iax2', sprIax],
        ['iax3', iax2],
      ] as const
    ).entries()) {
      const said = Object.fromEntries(guest.lines(device).map((line) => line.split(/ (.*)/s, 2)));
      for (const [name, value] of Object.entries(attributes(profile, device.startsWith('iax'))))
        lab.equal(`${device} (${profile.name}): ${name}`, said[name], value);
      const parts = guest.lines(`${device}.parts`).map((line) => line.trim());
      lab.equal(`${device}: parts`, parts, [`${profile.engines} engine`, `${profile.groups} group`, `${profile.wqs} wq`]);
      const at = `0000:00:${(FIRST_SLOT + slot).toString(16)}.0`;
      lab.logged(guest.log, new RegExp(`${at}: Intel\\(R\\) Accelerator Device \\(v${profile.version.toString(16)}\\)`));
    }
  },
};
