/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/* What a program can have QEMU's edu device do, by /dev/edu-ADDRESS: for tests only */
#ifndef _UAPI_LINUX_EDU_H
#define _UAPI_LINUX_EDU_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define EDU_PAGES 160

#define EDU_TO_MEMORY 1 /* a DMA writes to memory, from the device's buffer */
#define EDU_ATTACK 2 /* it is what the driver's parameter "spoil" spoils */

/**
 * struct edu_request - one request; what is not said to be used is ignored
 * @page: of EDU_PAGES, which are allocated at all times
 * @offset: in the page, in bytes, for all but EDU_START
 * @size: bytes from there on; of EDU_START, from @iova on
 * @flags: of EDU_START
 * @running: EDU_RUNNING says whether the DMA that was started last still runs
 * @count: EDU_COUNT says how many words of 8 bytes are @value
 * @value: EDU_FILL sets each word of 8 bytes to it
 * @iova: EDU_MAP says where it is mapped; EDU_START begins there, mapped or not
 * @phys: EDU_MAP says what the IOMMU makes of @iova
 * @own: EDU_MAP says where the page is, at @offset
 */
struct edu_request {
	__u32 page;
	__u32 offset;
	__u32 size;
	__u32 flags;
	__u32 running;
	__u32 count;
	__u64 value;
	__u64 iova;
	__u64 phys;
	__u64 own;
};

#define EDU_MAP _IOWR('e', 0, struct edu_request)
#define EDU_UNMAP _IOWR('e', 1, struct edu_request)
#define EDU_FILL _IOWR('e', 2, struct edu_request)
#define EDU_COUNT _IOWR('e', 3, struct edu_request)
#define EDU_START _IOWR('e', 4, struct edu_request)
#define EDU_RUNNING _IOWR('e', 5, struct edu_request)

#endif /* _UAPI_LINUX_EDU_H */
