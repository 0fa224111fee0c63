package exporter

// xfsCounts tells what each file system of the kind XFS did.
func (n *Node) xfsCounts(s *sender) error {
	list, err := n.xfs.SysStats()
	if err != nil {
		return err
	}
	for _, x := range list {
		for name, v := range map[string]uint32{
			"extent_allocation_extents_allocated": x.ExtentAllocation.ExtentsAllocated, "extent_allocation_blocks_allocated": x.ExtentAllocation.BlocksAllocated,
			"extent_allocation_extents_freed": x.ExtentAllocation.ExtentsFreed, "extent_allocation_blocks_freed": x.ExtentAllocation.BlocksFreed,
			"allocation_btree_lookups": x.AllocationBTree.Lookups, "allocation_btree_compares": x.AllocationBTree.Compares,
			"allocation_btree_records_inserted": x.AllocationBTree.RecordsInserted, "allocation_btree_records_deleted": x.AllocationBTree.RecordsDeleted,
			"block_mapping_reads": x.BlockMapping.Reads, "block_mapping_writes": x.BlockMapping.Writes, "block_mapping_unmaps": x.BlockMapping.Unmaps,
			"block_mapping_extent_list_insertions": x.BlockMapping.ExtentListInsertions, "block_mapping_extent_list_deletions": x.BlockMapping.ExtentListDeletions,
			"block_mapping_extent_list_lookups": x.BlockMapping.ExtentListLookups, "block_mapping_extent_list_compares": x.BlockMapping.ExtentListCompares,
			"block_map_btree_lookups": x.BlockMapBTree.Lookups, "block_map_btree_compares": x.BlockMapBTree.Compares,
			"block_map_btree_records_inserted": x.BlockMapBTree.RecordsInserted, "block_map_btree_records_deleted": x.BlockMapBTree.RecordsDeleted,
			"directory_operation_lookup": x.DirectoryOperation.Lookups, "directory_operation_create": x.DirectoryOperation.Creates,
			"directory_operation_remove": x.DirectoryOperation.Removes, "directory_operation_getdents": x.DirectoryOperation.Getdents,
			"inode_operation_attempts": x.InodeOperation.Attempts, "inode_operation_found": x.InodeOperation.Found, "inode_operation_recycled": x.InodeOperation.Recycle,
			"inode_operation_missed": x.InodeOperation.Missed, "inode_operation_duplicates": x.InodeOperation.Duplicate, "inode_operation_reclaims": x.InodeOperation.Reclaims,
			"inode_operation_attribute_changes": x.InodeOperation.AttributeChange,
			"read_calls":                        x.ReadWrite.Read, "write_calls": x.ReadWrite.Write,
			"vnode_active": x.Vnode.Active, "vnode_allocate": x.Vnode.Allocate, "vnode_get": x.Vnode.Get, "vnode_hold": x.Vnode.Hold,
			"vnode_release": x.Vnode.Release, "vnode_reclaim": x.Vnode.Reclaim, "vnode_remove": x.Vnode.Remove,
		} {
			s.counter("node_xfs_"+name+"_total", "File system XFS, "+name+".", float64(v), "device", x.Name)
		}
	}
	return nil
}
