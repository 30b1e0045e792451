/** Where a device's requests go before `connect`: nobody claims them. PCIe, "Unsupported Request". */
import { TlpStatus } from '@siov/layout/pcie';
import type { Upstream } from './ports.js';

const REFUSED = 1;

export const unconnected: Upstream = {
  acquire: () => TlpStatus.unsupportedRequest,
  commit() {},
  message() {},
  pageRequest: () => REFUSED,
};
