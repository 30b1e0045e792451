/** What the server takes. Bytes where nothing else is said. */
import { HEADER_BYTES } from './spec/protocol.js';

/** Most data of one message, either way. */
export const MAX_DATA = 1 << 20;
/** Of one message: header, the structure before the data, data. */
export const MAX_MESSAGE = MAX_DATA + HEADER_BYTES + 16;
/** Ranges that can be mapped at a time. */
export const MAX_DMA_MAPS = 65_535;
/** One of them. */
export const MAX_DMA_BYTES = 2 ** 43;
/** Page size of maps. */
export const PAGE_BYTES = 4096;
/** Ranges of one DMA_LOGGING_START. */
export const MAX_LOG_RANGES = 4096;
/** Bytes of the largest message that a client takes. */
export const LARGEST_REPLY = 1 << 26;
