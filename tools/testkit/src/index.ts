/** What the tests of several packages share. */
export { compareLayout, evaluate, kernelHeader } from './gcc.js';
export { MockIommu } from './mock-iommu.js';
export { Mock, MockDeviceFlag } from './mock-numbers.js';
export { TestOp } from './mock-test-cmd.js';
export { runReadmeExample } from './readme.js';
export { VfioClient, type VfioTask } from './vfio-client.js';
export { type VfioSetup, vfioDeviceSuite } from './vfio-suite.js';
