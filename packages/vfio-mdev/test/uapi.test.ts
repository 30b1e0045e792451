/** Layouts and numbers against the kernel's own header. */
import { compareLayout, evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import * as uapi from '../src/uapi.js';

const HEADER = 'linux/vfio.h';
const { here, why } = kernelHeader(HEADER);
if (!here) console.log(`left out: ${HEADER}: ${why}`);

/** Structures of newer headers are left out, and named, where the machine's header has none. */
const has = (expression: string): boolean => {
  try {
    evaluate([HEADER], [expression]);
    return true;
  } catch {
    console.log(`left out: ${HEADER} has no ${expression}`);
    return false;
  }
};

const halves = (name: string): Record<string, string> => ({ [name]: `${name}Low` });
const common = { argsz: 'argsz', flags: 'flags' };
const rows: [struct: string, layout: Parameters<typeof compareLayout>[2], members: Record<string, string>, newer?: boolean][] = [
  ['struct vfio_group_status', uapi.GroupStatus, common],
  ['struct vfio_device_info', uapi.DeviceInfo, { ...common, num_regions: 'regions', num_irqs: 'irqs', cap_offset: 'capOffset', pad: 'pad' }, true],
  ['struct vfio_region_info', uapi.RegionInfoLayout, { ...common, index: 'index', cap_offset: 'capOffset', ...halves('size'), ...halves('offset') }],
  ['struct vfio_region_info_cap_sparse_mmap', uapi.SparseMmap, { nr_areas: 'count', reserved: 'reserved' }],
  ['struct vfio_region_sparse_mmap_area', uapi.SparseArea, { ...halves('offset'), ...halves('size') }],
  ['struct vfio_info_cap_header', uapi.CapHeader, { id: 'id', version: 'version', next: 'next' }],
  ['struct vfio_irq_info', uapi.IrqInfoLayout, { ...common, index: 'index', count: 'count' }],
  ['struct vfio_irq_set', uapi.IrqSet, { ...common, index: 'index', start: 'start', count: 'count' }],
  ['struct vfio_device_feature', uapi.DeviceFeature, common],
  ['struct vfio_iommu_type1_info', uapi.IommuInfo, { ...common, iova_pgsizes: 'pageSizesLow', cap_offset: 'capOffset' }],
  ['struct vfio_iommu_type1_dma_map', uapi.DmaMap, { ...common, ...halves('vaddr'), ...halves('iova'), ...halves('size') }],
  ['struct vfio_iommu_type1_dma_unmap', uapi.DmaUnmap, { ...common, ...halves('iova'), ...halves('size') }],
  ['struct vfio_bitmap', uapi.DirtyBitmap, { pgsize: 'pageSizeLow', size: 'sizeLow', data: 'dataLow' }],
  ['struct vfio_iommu_type1_dirty_bitmap', uapi.DirtyPages, common],
  [
    'struct vfio_iommu_type1_dirty_bitmap_get',
    uapi.DirtyRange,
    { iova: 'iovaLow', size: 'sizeLow', 'bitmap.pgsize': 'pageSizeLow', 'bitmap.size': 'bitmapSizeLow', 'bitmap.data': 'dataLow' },
  ],
  ['struct vfio_device_bind_iommufd', uapi.BindIommufd, { ...common, iommufd: 'iommufd', out_devid: 'deviceId', token_uuid_ptr: 'tokenLow' }, true],
  ['struct vfio_device_attach_iommufd_pt', uapi.AttachPt, { ...common, pt_id: 'ptId', pasid: 'pasid' }, true],
  ['struct vfio_device_detach_iommufd_pt', uapi.DetachPt, { ...common, pasid: 'pasid' }, true],
];

test.runIf(here).each(rows)('%s is laid out as in linux/vfio.h', (struct, layout, members, newer) => {
  if (newer && !has(`sizeof(${struct})`)) return;
  const known = newer ? Object.entries(members).filter(([member]) => has(`offsetof(${struct}, ${member})`)) : Object.entries(members);
  const { gcc, ours } = compareLayout(HEADER, struct, layout, Object.fromEntries(known));
  if (known.length < Object.keys(members).length) ours.size = gcc.size!;
  expect(ours).toEqual(gcc);
});

const constants: Record<string, number> = {
  ...Object.fromEntries(Object.entries(uapi.Ioctl).map(([name, value]) => [`VFIO_${name}`, value])),
  VFIO_API_VERSION: uapi.API_VERSION,
  VFIO_TYPE1_IOMMU: uapi.Extension.TYPE1,
  VFIO_TYPE1v2_IOMMU: uapi.Extension.TYPE1v2,
  VFIO_DMA_CC_IOMMU: uapi.Extension.DMA_CC,
  VFIO_UNMAP_ALL: uapi.Extension.UNMAP_ALL,
  VFIO_UPDATE_VADDR: uapi.Extension.UPDATE_VADDR,
  VFIO_GROUP_FLAGS_CONTAINER_SET: uapi.GroupFlag.CONTAINER_SET,
  VFIO_DEVICE_FLAGS_CAPS: uapi.DeviceFlag.CAPS,
  VFIO_REGION_INFO_FLAG_CAPS: uapi.RegionFlag.CAPS,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE: uapi.RegionCap.MSIX_MAPPABLE,
  VFIO_IRQ_INFO_NORESIZE: uapi.IrqInfoFlag.NORESIZE,
  VFIO_IRQ_SET_ACTION_TRIGGER: uapi.IrqSetFlag.ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_TYPE_MASK: uapi.IRQ_SET_DATA,
  VFIO_IRQ_SET_ACTION_TYPE_MASK: uapi.IRQ_SET_ACTION,
  VFIO_PCI_CONFIG_REGION_INDEX: uapi.PciRegion.CONFIG,
  VFIO_PCI_NUM_REGIONS: uapi.PCI_REGIONS,
  VFIO_PCI_REQ_IRQ_INDEX: uapi.PciIrq.REQ,
  VFIO_PCI_NUM_IRQS: uapi.PCI_IRQS,
  VFIO_IOMMU_INFO_CAPS: uapi.IommuInfoFlag.CAPS,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE: uapi.IommuCap.IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION: uapi.IommuCap.MIGRATION,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL: uapi.IommuCap.DMA_AVAIL,
  VFIO_DMA_MAP_FLAG_VADDR: uapi.DmaMapFlag.VADDR,
  VFIO_DMA_UNMAP_FLAG_ALL: uapi.DmaUnmapFlag.ALL,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP: uapi.DirtyPagesFlag.GET_BITMAP,
  VFIO_DEVICE_FEATURE_PROBE: uapi.FeatureFlag.PROBE,
};
test.runIf(here)('numbers are those of linux/vfio.h', () => {
  const known = Object.keys(constants).filter((name) => (/IOMMUFD/.test(name) ? has(name) : true));
  expect(Object.fromEntries(known.map((name) => [name, constants[name]]))).toEqual(
    Object.fromEntries(evaluate([HEADER], known).map((value, i) => [known[i]!, value])),
  );
});
