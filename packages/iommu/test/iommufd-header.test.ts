import { compareLayout, evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import { iommufd } from '../src/spec/index.js';

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
  ['iommu_hw_info_vtd', iommufd.HwInfoVtd, { flags: 'flags', cap_reg: 'capabilityLow', ecap_reg: 'extendedLow' }],
];
test.skipIf(!here).each(structures)('struct %s', (name, layout, members) => {
  const { gcc, ours } = compareLayout('linux/iommufd.h', `struct ${name}`, layout, members);
  expect(ours).toEqual(gcc);
});

const NAMES = [
  'DESTROY',
  'IOAS_ALLOC',
  'IOAS_ALLOW_IOVAS',
  'IOAS_COPY',
  'IOAS_IOVA_RANGES',
  'IOAS_MAP',
  'IOAS_UNMAP',
  'OPTION',
  'VFIO_IOAS',
  'HWPT_ALLOC',
  'GET_HW_INFO',
  'HWPT_SET_DIRTY_TRACKING',
  'HWPT_GET_DIRTY_BITMAP',
  'HWPT_INVALIDATE',
  'FAULT_QUEUE_ALLOC',
] as const;
test.skipIf(!here)('ioctl numbers and flags', () => {
  const { IommufdIoctl: ours, IoasMapFlag, HwptAllocFlag } = iommufd;
  expect(NAMES.map((n) => ours[n])).toEqual(
    evaluate(
      ['linux/iommufd.h'],
      NAMES.map((n) => `IOMMU_${n}`),
    ),
  );
  expect([IoasMapFlag.FIXED_IOVA, IoasMapFlag.WRITEABLE, IoasMapFlag.READABLE, HwptAllocFlag.NEST_PARENT, HwptAllocFlag.PASID]).toEqual(
    evaluate(
      ['linux/iommufd.h'],
      ['IOMMU_IOAS_MAP_FIXED_IOVA', 'IOMMU_IOAS_MAP_WRITEABLE', 'IOMMU_IOAS_MAP_READABLE', 'IOMMU_HWPT_ALLOC_NEST_PARENT', 'IOMMU_HWPT_ALLOC_PASID'],
    ),
  );
});
