/** The objects of an open file of /dev/iommu. linux/iommufd.h, "IOMMUFD Objects". */
import type { Access } from './access.js';
import type { EventQueue, FaultQueue } from './event-queues.js';
import type { Ioas } from './ioas.js';
import type { NestedTable, PageTable, Viommu } from './ops.js';

interface Counted {
  id: number;
  /** What keeps it from being destroyed. */
  users: number;
}
export interface DeviceObject extends Counted {
  readonly kind: 'device';
  readonly requesterId: number;
  /** By PASID; NO_PASID for the device itself. */
  readonly attached: Map<number, HwptObject>;
  vdevice: VdeviceObject | undefined;
}
export interface IoasObject extends Counted {
  readonly kind: 'ioas';
  readonly ioas: Ioas;
}
export interface PagingObject extends Counted {
  readonly kind: 'paging';
  readonly table: PageTable;
  readonly ioas: IoasObject;
  /** HwptAllocFlag bits. */
  readonly flags: number;
  /** Made by attaching to its IOAS; goes with its last user. */
  readonly automatic: boolean;
  fault: FaultObject | undefined;
}
export interface NestedObject extends Counted {
  readonly kind: 'nested';
  readonly table: NestedTable;
  readonly parent: PagingObject;
  readonly viommu: ViommuObject | undefined;
  readonly flags: number;
  fault: FaultObject | undefined;
}
export type HwptObject = PagingObject | NestedObject;
export interface FaultObject extends Counted {
  readonly kind: 'fault';
  readonly queue: FaultQueue;
}
export interface ViommuObject extends Counted {
  readonly kind: 'viommu';
  readonly parent: PagingObject;
  readonly type: number;
  viommu: Viommu;
  readonly devices: Map<bigint, VdeviceObject>;
  /** By type. */
  readonly queues: Map<number, EventQueue>;
}
export interface VdeviceObject extends Counted {
  readonly kind: 'vdevice';
  readonly viommu: ViommuObject;
  readonly device: DeviceObject;
  readonly virtualId: bigint;
}
export interface EventQueueObject extends Counted {
  readonly kind: 'veventq';
  readonly viommu: ViommuObject;
  readonly type: number;
  readonly queue: EventQueue;
}
export interface HwQueueObject extends Counted {
  readonly kind: 'hwQueue';
  readonly viommu: ViommuObject;
  readonly index: number;
  release(): void;
}
export interface AccessObject extends Counted {
  readonly kind: 'access';
  readonly access: Access;
}
/** Of a driver's own. */
interface OtherObject extends Counted {
  readonly kind: 'other';
  destroy(): void;
}
/** The id of a virtual device whose device went: nobody gets it again. */
interface Tombstone extends Counted {
  readonly kind: 'tombstone';
}
export type IommufdObject =
  | DeviceObject
  | IoasObject
  | PagingObject
  | NestedObject
  | FaultObject
  | ViommuObject
  | VdeviceObject
  | EventQueueObject
  | HwQueueObject
  | AccessObject
  | OtherObject
  | Tombstone;
export type ObjectKind = IommufdObject['kind'];
export type ObjectOf<K extends ObjectKind> = Extract<IommufdObject, { kind: K }>;
