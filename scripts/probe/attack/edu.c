// SPDX-License-Identifier: GPL-2.0-only
/*
 * QEMU's edu device, which does DMA where it is told to, mapped or not: for tests only.
 *
 * The driver does what a program asks for, and judges nothing. The device begins a DMA
 * 100 ms after it was told to, ignores what goes wrong with it, and cuts addresses off
 * beyond its mask.
 */
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/uaccess.h>
#include <uapi/linux/edu.h>

#define EDU_VENDOR 0x1234
#define EDU_DEVICE 0x11e8

/* Registers, and what is in them */
#define EDU_SOURCE 0x80
#define EDU_TARGET 0x88
#define EDU_LENGTH 0x90
#define EDU_COMMAND 0x98
#define EDU_RUN BIT(0)
#define EDU_FROM_DEVICE BIT(1)
#define EDU_BUFFER 0x40000 /* where the device's buffer is, for the device */
#define EDU_BUFFER_SIZE 4096

static uint mask = 28;
module_param(mask, uint, 0444);
MODULE_PARM_DESC(mask, "bits that the driver takes the device's DMA mask for");

static char *spoil = "";
module_param(spoil, charp, 0444);
MODULE_PARM_DESC(spoil, "never, or other: what becomes of an EDU_ATTACK");

struct edu_mapping {
	dma_addr_t iova;
	u32 size; /* 0 if there is none */
};

struct edu {
	struct pci_dev *pdev;
	void __iomem *regs;
	void *pages[EDU_PAGES];
	struct edu_mapping mappings[EDU_PAGES];
	struct miscdevice misc;
	struct edu *started; /* the device that was told to start last */
	struct mutex lock; /* one request at a time */
};

static int edu_map(struct edu *edu, struct edu_request *req)
{
	struct edu_mapping *mapping = &edu->mappings[req->page];
	struct device *dev = &edu->pdev->dev;
	void *at = edu->pages[req->page] + req->offset;
	struct iommu_domain *domain;

	if (mapping->size)
		return -EBUSY;
	mapping->iova = dma_map_page(dev, virt_to_page(at), req->offset,
				     req->size, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(dev, mapping->iova))
		return -ENOMEM;
	mapping->size = req->size;
	domain = iommu_get_domain_for_dev(dev);
	req->iova = mapping->iova;
	req->phys = domain ? iommu_iova_to_phys(domain, req->iova) : req->iova;
	req->own = virt_to_phys(at);
	return 0;
}

static int edu_unmap(struct edu *edu, struct edu_request *req)
{
	struct edu_mapping *mapping = &edu->mappings[req->page];

	if (!mapping->size)
		return -EINVAL;
	dma_unmap_page(&edu->pdev->dev, mapping->iova, mapping->size,
		       DMA_BIDIRECTIONAL);
	mapping->size = 0;
	return 0;
}

static int edu_fill(struct edu *edu, struct edu_request *req)
{
	u64 *word = edu->pages[req->page] + req->offset;
	u32 i;

	for (i = 0; i < req->size / sizeof(*word); i++)
		WRITE_ONCE(word[i], req->value);
	return 0;
}

static int edu_count(struct edu *edu, struct edu_request *req)
{
	u64 *word = edu->pages[req->page] + req->offset;
	u32 i;

	req->count = 0;
	for (i = 0; i < req->size / sizeof(*word); i++)
		req->count += READ_ONCE(word[i]) == req->value;
	return 0;
}

/* Another device of ours, or NULL */
static struct edu *edu_other(struct edu *edu)
{
	struct pci_dev *pdev = NULL;

	while ((pdev = pci_get_device(EDU_VENDOR, EDU_DEVICE, pdev))) {
		if (pdev == edu->pdev || !pci_get_drvdata(pdev))
			continue;
		pci_dev_put(pdev);
		return pci_get_drvdata(pdev);
	}
	return NULL;
}

static bool edu_is_running(struct edu *edu)
{
	return readl(edu->regs + EDU_COMMAND) & EDU_RUN;
}

static int edu_start(struct edu *edu, struct edu_request *req)
{
	bool from_device = req->flags & EDU_TO_MEMORY;
	struct edu *does = edu;

	if (req->flags & EDU_ATTACK && !strcmp(spoil, "never"))
		return 0;
	if (req->flags & EDU_ATTACK && !strcmp(spoil, "other"))
		does = edu_other(edu);
	if (!does)
		return -ENODEV;
	if (edu_is_running(does))
		return -EBUSY;
	edu->started = does;
	writeq(from_device ? EDU_BUFFER : req->iova, does->regs + EDU_SOURCE);
	writeq(from_device ? req->iova : EDU_BUFFER, does->regs + EDU_TARGET);
	writeq(req->size, does->regs + EDU_LENGTH);
	writeq(EDU_RUN | (from_device ? EDU_FROM_DEVICE : 0),
	       does->regs + EDU_COMMAND);
	return 0;
}

static int edu_obey(struct edu *edu, unsigned int cmd, struct edu_request *req)
{
	switch (cmd) {
	case EDU_MAP:
		return edu_map(edu, req);
	case EDU_UNMAP:
		return edu_unmap(edu, req);
	case EDU_FILL:
		return edu_fill(edu, req);
	case EDU_COUNT:
		return edu_count(edu, req);
	case EDU_START:
		return edu_start(edu, req);
	case EDU_RUNNING:
		req->running = edu_is_running(edu->started);
		return 0;
	}
	return -ENOTTY;
}

static long edu_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct edu *edu = container_of(file->private_data, struct edu, misc);
	struct edu_request __user *user = (void __user *)arg;
	struct edu_request req;
	long ret;

	if (copy_from_user(&req, user, sizeof(req)))
		return -EFAULT;
	if (req.page >= EDU_PAGES || req.offset >= PAGE_SIZE ||
	    req.offset % sizeof(u64) || !req.size ||
	    req.size > min(PAGE_SIZE - req.offset, EDU_BUFFER_SIZE))
		return -EINVAL;
	mutex_lock(&edu->lock);
	ret = edu_obey(edu, cmd, &req);
	mutex_unlock(&edu->lock);
	if (!ret && copy_to_user(user, &req, sizeof(req)))
		return -EFAULT;
	return ret;
}

static const struct file_operations edu_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = edu_ioctl,
};

static void edu_deregister(void *data)
{
	misc_deregister(data);
}

static int edu_register(struct edu *edu)
{
	struct device *dev = &edu->pdev->dev;
	int ret;

	edu->misc.minor = MISC_DYNAMIC_MINOR;
	edu->misc.fops = &edu_fops;
	edu->misc.parent = dev;
	edu->misc.name =
		devm_kasprintf(dev, GFP_KERNEL, "edu-%s", pci_name(edu->pdev));
	if (!edu->misc.name)
		return -ENOMEM;
	ret = misc_register(&edu->misc);
	if (ret)
		return ret;
	return devm_add_action_or_reset(dev, edu_deregister, &edu->misc);
}

/* Nobody takes a device away while it is used. */
static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	unsigned long page;
	struct edu *edu;
	int ret, i;

	edu = devm_kzalloc(dev, sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	edu->pdev = pdev;
	edu->started = edu;
	mutex_init(&edu->lock);
	for (i = 0; i < EDU_PAGES; i++) {
		page = devm_get_free_pages(dev, GFP_KERNEL | __GFP_ZERO, 0);
		edu->pages[i] = (void *)page;
		if (!page)
			return -ENOMEM;
	}
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	edu->regs = pcim_iomap_region(pdev, 0, "edu");
	if (IS_ERR(edu->regs))
		return PTR_ERR(edu->regs);
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(mask));
	if (ret)
		return ret;
	pci_set_master(pdev);
	pci_set_drvdata(pdev, edu);
	return edu_register(edu);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(EDU_VENDOR, EDU_DEVICE) },
	{},
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "edu",
	.id_table = edu_ids,
	.probe = edu_probe,
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("DMA of QEMU's edu device, for tests");
MODULE_LICENSE("GPL");
