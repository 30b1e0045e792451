/** The user API of uacce. misc/uacce/uacce.h. */
import { io } from '@siov/layout/uapi';

/** UACCE_CMD_START_Q, UACCE_CMD_PUT_Q. */
export const UacceIoctl = { START_Q: io('W', 0), PUT_Q: io('W', 1) } as const;
/** UACCE_DEV_SVA. */
export const UacceFlag = { SVA: 1 } as const;
/** enum uacce_qfrt: which region a page offset of mmap selects. */
export const UacceRegion = { MMIO: 0, DUS: 1 } as const;
/** Regions there may be. UACCE_MAX_REGION. */
export const REGIONS = 2;
