/** QEMU's command line for one guest. */

export interface Machine {
  readonly kernel: string;
  readonly initrd: string;
  /** Where the guest's console goes. */
  readonly log: string;
  /** Folder of Debian's tree: firmware is there. */
  readonly tree: string;
  /** Sockets of the devices, in the order of the guest's PCI slots. */
  readonly sockets: readonly string[];
  readonly cpus: number;
  /** Guest memory that QEMU hands to the device's process as a file (mapped), or that only messages reach. */
  readonly dma: 'mapped' | 'messages';
  /** A legacy VT-d unit between devices and memory, in caching mode. */
  readonly iommu: boolean;
  /** The guest may reboot. */
  readonly reboots: boolean;
}

const MEMORY = '512M';

/** The argument of -device for a device on a socket. */
const vfioUser = (path: string, slot: number): string =>
  JSON.stringify({ driver: 'vfio-user-pci', addr: slot.toString(16), socket: { type: 'unix', path } });
/** The first slot of the devices on the root bus. */
export const FIRST_SLOT = 0x10;

export function qemuArguments(machine: Machine): string[] {
  const share = '/usr/share/';
  const append = ['console=ttyS0', 'panic=-1', 'quiet', 'setcpuid=movdir64b', ...(machine.iommu ? ['intel_iommu=on'] : [])];
  return [
    ...['qemu', 'seabios'].flatMap((name) => ['-L', `${machine.tree}${share}${name}`]),
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-monitor', 'none'],
    ...(machine.reboots ? [] : ['-no-reboot']),
    ...['-accel', 'tcg', '-cpu', 'max', '-smp', `${machine.cpus}`, '-m', MEMORY],
    ...['-machine', 'q35,memory-backend=memory'],
    ...[
      '-object',
      machine.dma === 'mapped' ? `memory-backend-memfd,id=memory,share=on,size=${MEMORY}` : `memory-backend-ram,id=memory,size=${MEMORY}`,
    ],
    // The first serial line is the console, the second the scenario's.
    ...['-chardev', `file,id=log,path=${machine.log}`, '-serial', 'chardev:log', '-serial', 'stdio'],
    ...['-kernel', machine.kernel, '-initrd', machine.initrd, '-append', append.join(' ')],
    // Without interrupt remapping: the device's interrupts are eventfds, which know no table.
    ...(machine.iommu ? ['-device', 'intel-iommu,intremap=off,caching-mode=on'] : []),
    ...machine.sockets.flatMap((path, i) => ['-device', vfioUser(path, FIRST_SLOT + i)]),
  ];
}
