/**
 * What differs between clients. The specification leaves room, implementations differ from it, and some break on answers that it allows: one row
 * for each, chosen by the server's `peer` option.
 */
import { Errno } from '@siov/layout/uapi';
import { MAX_DATA } from './limits.js';

export interface Peer {
  /** DMA_MAP over a mapping. The specification says EEXIST, libvfio-user EINVAL. */
  readonly overlap: number;
  /** DMA_MAP of exactly what is mapped (same file, offset and rights) succeeds, as in libvfio-user. */
  readonly mapAgain: boolean;
  /** DMA_UNMAP of what was never mapped. QEMU with a virtual IOMMU sends such; Cloud Hypervisor cannot read an error here. */
  readonly unmapUnknown: number;
  /** False: a bad register read gives all ones and a bad write is accepted, since the client reads as many bytes as it asked for. */
  readonly accessErrors: boolean;
  /** False: indexes that are not there have information all the same: no size, no interrupts. */
  readonly infoErrors: boolean;
  /** The client answers DMA_READ and DMA_WRITE. */
  readonly dmaMessages: boolean;
  /**
   * Most data of one DMA message, whatever the client says, in bytes. QEMU writes a reply to a socket that does not block, and what does not fit at once is
   * lost: a stream socket takes a message whole or not at all up to half of its buffer (212992 bytes, net.core.wmem_default).
   */
  readonly dmaMessageBytes: number;
  /** Most data that DMA_READs under way may bring, in bytes: QEMU's replies must fit its socket together, too. */
  readonly dmaReadBytes: number;
  /** GET_REGION_INFO sets MMAP also in a reply that is too short to bring the descriptor. */
  readonly mmapWithoutFile: boolean;
  /** A region access of no bytes answers with the header alone. */
  readonly emptyAccessBare: boolean;
  /** Registers can be reached in state STOP_COPY. libvfio-user lets the command in and then refuses it. */
  readonly accessInStopCopy: boolean;
  /** Only registers, features and migration data can be reached while the device is stopped. libvfio-user. */
  readonly fewCommandsStopped: boolean;
  /** DEVICE_FEATURE of what the device has not. linux/vfio.h says ENOTTY, libvfio-user EINVAL. */
  readonly unknownFeature: number;
  /** One mapping more than there may be. */
  readonly tooManyMaps: number;
  /** A dirty report is for one mapping, exactly: ENOENT, ENOTSUP else. libvfio-user. */
  readonly reportExact: boolean;
}

const strict: Peer = {
  overlap: Errno.EEXIST,
  mapAgain: false,
  unmapUnknown: Errno.ENOENT,
  accessErrors: true,
  infoErrors: true,
  dmaMessages: true,
  dmaMessageBytes: MAX_DATA,
  dmaReadBytes: 16 * MAX_DATA,
  mmapWithoutFile: false,
  emptyAccessBare: false,
  accessInStopCopy: true,
  fewCommandsStopped: false,
  unknownFeature: Errno.ENOTTY,
  tooManyMaps: Errno.ENOSPC,
  reportExact: false,
};
export const peers = {
  /** docs/interop/vfio-user.rst to the letter, and linux/vfio.h where it says nothing. */
  strict,
  /** As libvfio-user's server answers: for its clients and tests. */
  'libvfio-user': {
    ...strict,
    overlap: Errno.EINVAL,
    mapAgain: true,
    mmapWithoutFile: true,
    emptyAccessBare: true,
    accessInStopCopy: false,
    fewCommandsStopped: true,
    unknownFeature: Errno.EINVAL,
    tooManyMaps: Errno.EINVAL,
    reportExact: true,
  },
  /** QEMU 10.1 and later, vfio-user-pci. */
  qemu: { ...strict, unmapUnknown: 0, dmaMessageBytes: 65_536, dmaReadBytes: 65_536 },
  /** Cloud Hypervisor, --user-device: it reads replies of a fixed size and no error, and answers no command. */
  'cloud-hypervisor': { ...strict, unmapUnknown: 0, mapAgain: true, accessErrors: false, infoErrors: false, dmaMessages: false },
} as const satisfies Record<string, Peer>;
export type PeerName = keyof typeof peers;
