import { compareLayout, evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import * as spec from '../src/spec/index.js';

const { iommufd } = spec;

const { here, why } = kernelHeader('linux/iommufd.h');
if (!here) console.log(`left out: the layouts against linux/iommufd.h (${why})`);

const structures: [string, Parameters<typeof compareLayout>[2], Record<string, string>][] = [
  ['iommu_destroy', iommufd.Destroy, { size: 'size', id: 'id' }],
  ['iommu_ioas_alloc', iommufd.IoasAlloc, { flags: 'flags', out_ioas_id: 'ioasId' }],
  [
    'iommu_ioas_iova_ranges',
    iommufd.IovaRanges,
    { ioas_id: 'ioasId', num_iovas: 'count', allowed_iovas: 'allowedLow', out_iova_alignment: 'alignmentLow' },
  ],
  ['iommu_iova_range', iommufd.IovaRange, { start: 'startLow', last: 'lastLow' }],
  ['iommu_ioas_map', iommufd.IoasMap, { flags: 'flags', ioas_id: 'ioasId', user_va: 'userLow', length: 'lengthLow', iova: 'iovaLow' }],
  [
    'iommu_ioas_copy',
    iommufd.IoasCopy,
    {
      flags: 'flags',
      dst_ioas_id: 'destinationIoasId',
      src_ioas_id: 'sourceIoasId',
      length: 'lengthLow',
      dst_iova: 'destinationLow',
      src_iova: 'sourceLow',
    },
  ],
  ['iommu_ioas_unmap', iommufd.IoasUnmap, { ioas_id: 'ioasId', iova: 'iovaLow', length: 'lengthLow' }],
  [
    'iommu_hwpt_alloc',
    iommufd.HwptAlloc,
    {
      flags: 'flags',
      dev_id: 'deviceId',
      pt_id: 'parentId',
      out_hwpt_id: 'hwptId',
      data_type: 'dataType',
      data_len: 'dataLength',
      data_uptr: 'dataLow',
      fault_id: 'faultId',
    },
  ],
  ['iommu_hwpt_vtd_s1', iommufd.HwptVtdS1, { flags: 'flagsLow', pgtbl_addr: 'tableLow', addr_width: 'addressWidth' }],
  [
    'iommu_hwpt_invalidate',
    iommufd.HwptInvalidate,
    { hwpt_id: 'hwptId', data_uptr: 'dataLow', data_type: 'dataType', entry_len: 'entryLength', entry_num: 'entryCount' },
  ],
  ['iommu_hwpt_vtd_s1_invalidate', iommufd.VtdS1Invalidate, { addr: 'addressLow', npages: 'pagesLow', flags: 'flags' }],
  [
    'iommu_hw_info',
    iommufd.HwInfo,
    {
      flags: 'flags',
      dev_id: 'deviceId',
      data_len: 'dataLength',
      data_uptr: 'dataLow',
      out_data_type: 'dataType',
      out_max_pasid_log2: 'maxPasidLog2',
      out_capabilities: 'capabilitiesLow',
    },
  ],
  ['iommu_ioas_allow_iovas', iommufd.AllowIovas, { ioas_id: 'ioasId', num_iovas: 'count', allowed_iovas: 'allowedLow' }],
  ['iommu_option', iommufd.Option, { option_id: 'option', op: 'op', object_id: 'objectId', val64: 'valueLow' }],
  ['iommu_vfio_ioas', iommufd.VfioIoas, { ioas_id: 'ioasId', op: 'op' }],
  ['iommu_hwpt_set_dirty_tracking', iommufd.SetDirtyTracking, { flags: 'flags', hwpt_id: 'hwptId' }],
  [
    'iommu_hwpt_get_dirty_bitmap',
    iommufd.GetDirtyBitmap,
    { hwpt_id: 'hwptId', flags: 'flags', iova: 'iovaLow', length: 'lengthLow', page_size: 'pageSizeLow', data: 'dataLow' },
  ],
  ['iommu_fault_alloc', iommufd.FaultAlloc, { flags: 'flags', out_fault_id: 'faultId', out_fault_fd: 'fd' }],
  [
    'iommu_hwpt_pgfault',
    iommufd.PageFault,
    {
      flags: 'flags',
      dev_id: 'deviceId',
      pasid: 'pasid',
      grpid: 'group',
      perm: 'permissions',
      addr: 'addressLow',
      length: 'length',
      cookie: 'cookie',
    },
  ],
  ['iommu_hwpt_page_response', iommufd.PageAnswer, { cookie: 'cookie', code: 'code' }],
  [
    'iommu_ioas_map_file',
    iommufd.IoasMapFile,
    { flags: 'flags', ioas_id: 'ioasId', fd: 'fd', start: 'startLow', length: 'lengthLow', iova: 'iovaLow' },
  ],
  [
    'iommu_viommu_alloc',
    iommufd.ViommuAlloc,
    {
      flags: 'flags',
      type: 'type',
      dev_id: 'deviceId',
      hwpt_id: 'hwptId',
      out_viommu_id: 'viommuId',
      data_len: 'dataLength',
      data_uptr: 'dataLow',
    },
  ],
  ['iommu_vdevice_alloc', iommufd.VdeviceAlloc, { viommu_id: 'viommuId', dev_id: 'deviceId', out_vdevice_id: 'vdeviceId', virt_id: 'virtualLow' }],
  ['iommu_ioas_change_process', iommufd.ChangeProcess, { size: 'size' }],
  [
    'iommu_veventq_alloc',
    iommufd.VeventqAlloc,
    { flags: 'flags', viommu_id: 'viommuId', type: 'type', veventq_depth: 'depth', out_veventq_id: 'veventqId', out_veventq_fd: 'fd' },
  ],
  ['iommufd_vevent_header', iommufd.VeventHeader, { flags: 'flags', sequence: 'sequence' }],
  [
    'iommu_hw_queue_alloc',
    iommufd.HwQueueAlloc,
    {
      flags: 'flags',
      viommu_id: 'viommuId',
      type: 'type',
      index: 'index',
      out_hw_queue_id: 'queueId',
      nesting_parent_iova: 'iovaLow',
      length: 'lengthLow',
    },
  ],
  ['iommu_hw_info_vtd', iommufd.HwInfoVtd, { flags: 'flags', cap_reg: 'capabilityLow', ecap_reg: 'extendedLow' }],
];
test.skipIf(!here).each(structures)('struct %s', (name, layout, members) => {
  const { gcc, ours } = compareLayout('linux/iommufd.h', `struct ${name}`, layout, members);
  expect(ours).toEqual(gcc);
});

const NAMES = Object.keys(iommufd.IommufdIoctl) as (keyof typeof iommufd.IommufdIoctl)[];
test.skipIf(!here)('ioctl numbers', () => {
  const header = NAMES.map((n) => `IOMMU_${n}`);
  expect(NAMES.map((n) => iommufd.IommufdIoctl[n])).toEqual(evaluate(['linux/iommufd.h'], header));
});
const { IoasMapFlag, HwptAllocFlag, HwInfoFlag, HwInfoCapability, DirtyTrackingFlag, GetDirtyBitmapFlag } = iommufd;
const { PageFaultFlag, PageFaultPermission, PageAnswerCode, OptionId, OptionOp, VfioIoasOp, VeventFlag } = iommufd;
/** By prefix in the header; names that it has otherwise are spelt out. */
const flags: readonly (readonly [prefix: string, ours: Readonly<Record<string, number>>, other: Readonly<Record<string, string>>])[] = [
  ['IOMMU_IOAS_MAP_', IoasMapFlag, {}],
  ['IOMMU_HWPT_ALLOC_', HwptAllocFlag, { FAULT_ID_VALID: 'IOMMU_HWPT_FAULT_ID_VALID' }],
  ['IOMMU_HW_INFO_FLAG_', HwInfoFlag, {}],
  ['IOMMU_HW_CAP_PCI_', HwInfoCapability, { DIRTY_TRACKING: 'IOMMU_HW_CAP_DIRTY_TRACKING' }],
  ['IOMMU_HWPT_DIRTY_TRACKING_', DirtyTrackingFlag, {}],
  ['IOMMU_HWPT_GET_DIRTY_BITMAP_', GetDirtyBitmapFlag, {}],
  ['IOMMU_PGFAULT_FLAGS_', PageFaultFlag, {}],
  ['IOMMU_PGFAULT_PERM_', PageFaultPermission, {}],
  ['IOMMUFD_PAGE_RESP_', PageAnswerCode, {}],
  ['IOMMU_OPTION_', OptionId, {}],
  ['IOMMU_OPTION_OP_', OptionOp, {}],
  ['IOMMU_VFIO_IOAS_', VfioIoasOp, {}],
  ['IOMMU_VEVENTQ_FLAG_', VeventFlag, {}],
];
test.skipIf(!here).each(flags)('%s', (prefix, ours, other) => {
  const header = Object.keys(ours).map((name) => other[name] ?? prefix + name);
  expect(Object.values(ours)).toEqual(evaluate(['linux/iommufd.h'], header));
});
test.skipIf(!here)('the types of our virtual IOMMU are none of the kernel’s', () => {
  const taken = evaluate(
    ['linux/iommufd.h'],
    ['IOMMU_VIOMMU_TYPE_DEFAULT', 'IOMMU_VIOMMU_TYPE_ARM_SMMUV3', 'IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV', 'IOMMU_VEVENTQ_TYPE_ARM_SMMUV3'],
  );
  expect(taken).not.toContain(iommufd.ViommuType.SIOV_VTD);
});

const vfio = kernelHeader('linux/vfio.h');
test.skipIf(!vfio.here)('the VFIO ioctls that the file has too', () => {
  const { VfioDmaMap, VfioDmaUnmap, VfioInfo, VfioIoctl, VfioExtension, VfioCap } = spec;
  const layouts: [string, Parameters<typeof compareLayout>[2], Record<string, string>][] = [
    ['vfio_iommu_type1_dma_map', VfioDmaMap, { flags: 'flags', vaddr: 'userLow', iova: 'iovaLow', size: 'lengthLow' }],
    ['vfio_iommu_type1_dma_unmap', VfioDmaUnmap, { flags: 'flags', iova: 'iovaLow', size: 'lengthLow' }],
    ['vfio_iommu_type1_info', VfioInfo, { flags: 'flags', iova_pgsizes: 'pageSizesLow', cap_offset: 'capOffset' }],
  ];
  for (const [name, layout, members] of layouts) {
    const { gcc, ours } = compareLayout('linux/vfio.h', `struct ${name}`, layout, members);
    expect(ours, name).toEqual(gcc);
  }
  const names = ['GET_API_VERSION', 'CHECK_EXTENSION', 'SET_IOMMU', 'IOMMU_GET_INFO', 'IOMMU_MAP_DMA', 'IOMMU_UNMAP_DMA'];
  const ours = [...Object.values(VfioIoctl), ...Object.values(VfioExtension), ...Object.values(VfioCap)];
  const rest = ['TYPE1_IOMMU', 'TYPE1v2_IOMMU', 'DMA_CC_IOMMU', 'UNMAP_ALL', 'IOMMU_TYPE1_INFO_CAP_IOVA_RANGE', 'IOMMU_TYPE1_INFO_DMA_AVAIL'];
  const header = [...names, ...rest].map((name) => `VFIO_${name}`);
  expect(ours).toEqual(evaluate(['linux/vfio.h'], header));
});
