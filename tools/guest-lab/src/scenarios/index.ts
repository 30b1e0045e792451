/** All scenarios, in the order of the table. A new one is a file beside this and a line here. */
import type { Scenario } from '../lab.js';
import { pci } from './a-pci.js';
import { probe } from './b-probe.js';
import { accelConfig } from './c-accel-config.js';
import { dmatest } from './d-dmatest.js';
import { severalDevices } from './e-several-devices.js';
import { halt } from './f-halt.js';
import { softwareError } from './g-software-error.js';
import { virtualIommu } from './h-virtual-iommu.js';
import { kindsOfDma } from './i-kinds-of-dma.js';
import { comingAndGoing } from './j-coming-and-going.js';
import { compression } from './k-compression.js';

export const scenarios: readonly Scenario[] = [
  pci,
  probe,
  accelConfig,
  dmatest,
  severalDevices,
  halt,
  softwareError,
  virtualIommu,
  kindsOfDma,
  comingAndGoing,
  compression,
];
