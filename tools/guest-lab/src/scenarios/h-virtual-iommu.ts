import type { Scenario } from '../lab.js';
import { configFile, kernelQueues } from './queues.js';

const ITERATIONS = 500;
const THREADS = 2;

const script = `
idxd
readlink /sys/bus/pci/devices/0000:00:10.0/iommu_group | send group
cat /sys/bus/pci/devices/0000:00:10.0/iommu_group/type | send type
configure one.json
dmatest behind ${ITERATIONS} ${THREADS}
unconfigure dsa0
`;

export const virtualIommu: Scenario = {
  id: 'h',
  name: 'virtual-iommu',
  about: 'behind a legacy virtual VT-d unit in caching mode every buffer is mapped and unmapped, and the device works with its addresses',
  async run(lab) {
    const server = await lab.serve('dsa-spr');
    const guest = await lab.guest({ servers: [server], iommu: true, files: { 'one.json': configFile(kernelQueues(0, 1)) }, script });
    lab.holds("the device is in a group of the guest's IOMMU", /iommu_groups\/\d+$/.test(guest.text('group')));
    lab.holds(`the group's domain translates (type ${guest.text('type')})`, /^DMA/.test(guest.text('type')));
    lab.dmatest('behind VT-d', guest.dmatest('behind'), { channels: 1, threads: THREADS, tests: ITERATIONS });
    lab.logged(guest.log, /DMAR: .*caching|DMAR: Intel\(R\) Virtualization Technology|Default domain type/);
  },
};
