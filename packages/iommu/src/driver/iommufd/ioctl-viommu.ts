/** Ioctls on virtual IOMMUs: their devices, event queues and hardware queues. linux/iommufd.h; Linux, drivers/iommu/iommufd/viommu.c. */
import { Errno } from '@siov/layout/uapi';
import { HwptAllocFlag, HwQueueAlloc, VdeviceAlloc, VeventqAlloc, ViommuAlloc, ViommuType } from '../../spec/iommufd.js';
import { Access } from './access.js';
import { EventQueue } from './event-queues.js';
import type { IommufdFile } from './file.js';
import { LAST_IOVA } from './ioas.js';
import type { EventQueueObject, HwQueueObject, VdeviceObject, ViommuObject } from './objects.js';
import type { Viommu, ViommuContext } from './ops.js';
import { big, type Ioctl, userData } from './structures.js';

const PAGE = 4096;
const PAGE_N = 4096n;
/** Events of a queue. */
const MAX_DEPTH = 2 ** 19;

export const viommuAlloc: Ioctl = {
  size: 40,
  least: 24,
  run(file, task, words) {
    const { get, set } = ViommuAlloc;
    const type = get.type(words, 0);
    if (get.flags(words, 0) || get.reserved(words, 0) || type === ViommuType.DEFAULT) return -Errno.EOPNOTSUPP;
    const device = file.find(get.deviceId(words, 0), 'device');
    if (!device) return -Errno.ENOENT;
    const { ops } = file;
    if (!ops.viommu || !ops.viommuTypes?.includes(type)) return -Errno.EOPNOTSUPP;
    const hwpt = file.find(get.hwptId(words, 0), 'paging');
    if (!hwpt) return -Errno.ENOENT;
    if (!(hwpt.flags & HwptAllocFlag.NEST_PARENT)) return -Errno.EINVAL;
    if (file.fails('viommu')) return -Errno.ENOMEM;
    const bytes = get.dataLength(words, 0);
    const data = bytes ? userData(task, type, bytes, get.dataHigh(words, 0), get.dataLow(words, 0)) : undefined;
    const object = file.add<ViommuObject>({
      kind: 'viommu',
      parent: hwpt,
      type,
      viommu: { free: () => {} },
      devices: new Map(),
      queues: new Map(),
    });
    const made = ops.viommu(device.requesterId, type, hwpt.table, data, contextOf(file, object));
    if (typeof made === 'number') {
      file.withdraw(object);
      file.remove(object.id);
      return made;
    }
    object.viommu = made satisfies Viommu;
    hwpt.users++;
    set.viommuId(words, 0, object.id);
    return 0;
  },
};
function contextOf(file: IommufdFile, object: ViommuObject): ViommuContext {
  return {
    deviceOf(virtualId) {
      const device = object.devices.get(virtualId)?.device;
      return device && { deviceId: device.id, requesterId: device.requesterId };
    },
    virtualIdOf(deviceId) {
      for (const { device, virtualId } of object.devices.values()) if (device.id === deviceId) return virtualId;
      return undefined;
    },
    offer: (frame) => file.offer(frame, object),
    report(type, event) {
      const queue = object.queues.get(type);
      if (!queue) return -Errno.EOPNOTSUPP;
      queue.add(new Uint8Array(event.buffer, event.byteOffset, event.byteLength));
      return 0;
    },
  };
}

export const vdeviceAlloc: Ioctl = {
  size: 24,
  least: 24,
  run(file, _task, words) {
    const { get, set } = VdeviceAlloc;
    const virtualId = big(get.virtualHigh(words, 0), get.virtualLow(words, 0));
    const viommu = file.find(get.viommuId(words, 0), 'viommu');
    const device = file.find(get.deviceId(words, 0), 'device');
    if (!viommu || !device) return -Errno.ENOENT;
    if (device.vdevice || viommu.devices.has(virtualId)) return -Errno.EEXIST;
    if (file.fails('vdevice')) return -Errno.ENOMEM;
    const refused = viommu.viommu.deviceAdded?.(device.requesterId, virtualId) ?? 0;
    if (refused) return refused;
    const object = file.add<VdeviceObject>({ kind: 'vdevice', viommu, device, virtualId });
    device.vdevice = object;
    viommu.devices.set(virtualId, object);
    viommu.users++;
    set.vdeviceId(words, 0, object.id);
    return 0;
  },
};

export const veventqAlloc: Ioctl = {
  size: 32,
  least: 28,
  installs: true,
  run(file, task, words) {
    const { get, set } = VeventqAlloc;
    const type = get.type(words, 0);
    const depth = get.depth(words, 0);
    if (get.flags(words, 0) || get.reserved(words, 0) || type === ViommuType.DEFAULT) return -Errno.EOPNOTSUPP;
    if (depth === 0 || depth > MAX_DEPTH) return -Errno.EINVAL;
    const viommu = file.find(get.viommuId(words, 0), 'viommu');
    if (!viommu) return -Errno.ENOENT;
    if (viommu.queues.has(type)) return -Errno.EEXIST;
    if (file.fails('event queue')) return -Errno.ENOMEM;
    const queue = new EventQueue(depth, () => {
      object.users--;
      file.put();
    });
    const object = file.add<EventQueueObject>({ kind: 'veventq', viommu, type, queue });
    const fd = task.install?.(queue) ?? -Errno.EMFILE;
    if (fd < 0) {
      file.remove(object.id);
      return fd;
    }
    object.users++;
    file.hold();
    viommu.queues.set(type, queue);
    viommu.users++;
    set.veventqId(words, 0, object.id);
    set.fd(words, 0, fd);
    return 0;
  },
};

export const hwQueueAlloc: Ioctl = {
  size: 40,
  least: 40,
  run(file, _task, words) {
    const { get, set } = HwQueueAlloc;
    const type = get.type(words, 0);
    if (get.flags(words, 0) || type === ViommuType.DEFAULT) return -Errno.EOPNOTSUPP;
    const iova = big(get.iovaHigh(words, 0), get.iovaLow(words, 0));
    const length = big(get.lengthHigh(words, 0), get.lengthLow(words, 0));
    if (length === 0n) return -Errno.EINVAL;
    if (iova + length - 1n > LAST_IOVA) return -Errno.EOVERFLOW;
    const viommu = file.find(get.viommuId(words, 0), 'viommu');
    if (!viommu) return -Errno.ENOENT;
    const { viommu: device } = viommu;
    if (!device.queueAdded || !device.queueTypes?.includes(type)) return -Errno.EOPNOTSUPP;
    const offset = iova % PAGE_N;
    const whole = ((offset + length + PAGE_N - 1n) / PAGE_N) * PAGE_N;
    if (whole > LAST_IOVA) return -Errno.ERANGE;
    if (whole > 2n ** 40n || file.fails('hardware queue')) return -Errno.ENOMEM;
    // The hardware reads it by physical address: it must not go, and must be one piece.
    const access = new Access({ pins: true, locks: true }, () => undefined);
    const refused = access.change(viommu.parent.ioas);
    if (refused) return refused;
    const frames = access.pin(iova - offset, whole, false);
    let error = typeof frames === 'number' ? frames : 0;
    if (typeof frames !== 'number') {
      if (frames.some((frame, i) => i > 0 && frame !== frames[i - 1]! + 1)) error = -Errno.EFAULT;
      error ||= device.queueAdded(get.index(words, 0), frames[0]! * PAGE + Number(offset), Number(length));
      if (error) access.unpin(iova - offset, whole);
    }
    if (error) {
      access.change(undefined);
      return error;
    }
    viommu.users++;
    const release = (): void => {
      access.unpin(iova - offset, whole);
      access.change(undefined);
    };
    const object = file.add<HwQueueObject>({ kind: 'hwQueue', viommu, index: get.index(words, 0), release });
    set.queueId(words, 0, object.id);
    return 0;
  },
};
