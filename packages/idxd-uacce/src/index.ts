/** Userspace model 2: work queues of DSA through uacce. Sources: Linux drivers/misc/uacce, drivers/dma/idxd (behaviour). */
export { IDXD_UACCE_GET_INTERRUPT, type IdxdUacceOptions, registerIdxdUacce } from './idxd-uacce.js';
