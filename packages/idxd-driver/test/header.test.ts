import { evaluate, kernelHeader } from '@siov/testkit';
import { expect, test } from 'vitest';
import { SoftStatus } from '../src/index.js';

const { here, why } = kernelHeader('linux/idxd.h');
if (!here) console.log(`linux/idxd.h: ${why}`);

/** Names of enum idxd_scmd_stat, as far as the headers of 6.1 have them. */
const names: Partial<Record<keyof typeof SoftStatus, string>> = {
  deviceEnabled: 'DEV_ENABLED',
  deviceNotEnabled: 'DEV_NOT_ENABLED',
  wqEnabled: 'WQ_ENABLED',
  deviceDma: 'DEV_DMA_ERR',
  wqNoGroup: 'WQ_NO_GRP',
  wqNoName: 'WQ_NO_NAME',
  wqNoSva: 'WQ_NO_SVM',
  wqNoThreshold: 'WQ_NO_THRESH',
  wqPortal: 'WQ_PORTAL_ERR',
  wqResources: 'WQ_RES_ALLOC_ERR',
  percpu: 'PERCPU_ERR',
  dmaChannel: 'DMA_CHAN_ERR',
  characterDevice: 'CDEV_ERR',
  wqNoSharedSupport: 'WQ_NO_SWQ_SUPPORT',
  wqNoneConfigured: 'WQ_NONE_CONFIGURED',
  wqNoSize: 'WQ_NO_SIZE',
  wqNoPrivilege: 'WQ_NO_PRIV',
  wqInterrupt: 'WQ_IRQ_ERR',
  wqUserNoIommu: 'WQ_USER_NO_IOMMU',
};
test.runIf(here)('linux/idxd.h: the driver’s own command statuses have the kernel’s numbers', () => {
  const keys = Object.keys(names) as (keyof typeof SoftStatus)[];
  const values = evaluate(
    ['linux/idxd.h'],
    keys.map((key) => `(unsigned)IDXD_SCMD_${names[key]}`),
  );
  expect(Object.fromEntries(keys.map((key, i) => [key, [...Object.values(values)][i]]))).toEqual(
    Object.fromEntries(keys.map((key) => [key, SoftStatus[key]])),
  );
});
