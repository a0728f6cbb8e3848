//! The RocksDB backend: one column family per table, one write-ahead log for all of them.
//!
//! Owns everything below the path it is opened with. Synced and buffered batches share the log, in
//! order, so a synced batch makes all earlier ones durable; a log whose end is torn is replayed up to
//! the tear, which can only be behind the last synced batch. Scratch tables bypass the log and are
//! emptied at open; they never share a batch with logged tables.
//!
//! Memory: memtables as the options say, and one block cache that also holds index and filter blocks,
//! cut into small partitions. Nothing else grows with the number of keys.
//!
//! Failure story: a write that fails, whatever the reason, and an error of a background job poison the
//! store: what is on disk is then only certain after it was opened again, so `write` refuses until
//! then and says why, and RocksDB is told not to resume by itself. Reads go on.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBRecoveryMode, LogLevel, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions, properties,
};

use super::{Batch, Cached, Durability, KvStore, MAX_KEY, Op, Table, Visit};
use crate::env::{RealDisk, create_dir_durably};
use crate::error::{Error, ErrorKind, Result};

/// Log files (not write-ahead logs) that RocksDB keeps, and the size of each.
const LOG_FILES: usize = 2;
const LOG_FILE_BYTES: usize = 4 << 20;

/// Options that the crate has no function for: no automatic resume after a background error, and no
/// writing of scratch tables on the way out.
const EXTRA_OPTIONS: &str = "max_bgerror_resume_count=0;avoid_flush_during_shutdown=true";

/// What a store may take.
#[derive(Clone, Debug)]
pub struct RocksOptions {
    /// Tables that live only as long as the store is open.
    pub scratch: Vec<Table>,
    /// Size at which the memtable of one table is flushed; all together take at most twice that.
    pub memtable_bytes: usize,
    /// Block cache of the store, index and filter blocks included.
    pub cache_bytes: usize,
    /// Table files held open.
    pub max_open_files: i32,
    /// Compress with LZ4. Pays for text and records, not for hashes.
    pub compress: bool,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            scratch: Vec::new(),
            memtable_bytes: 16 << 20,
            cache_bytes: 64 << 20,
            max_open_files: 256,
            compress: false,
        }
    }
}

/// A [`KvStore`] in a directory.
pub struct RocksKv {
    db: DB,
    path: PathBuf,
    scratch: Vec<Table>,
    /// Why writes are refused.
    poison: Mutex<Option<String>>,
}

impl RocksKv {
    /// Open or create the store at `path`, with exactly these tables. `Unavailable` if another
    /// process has it open, `Invalid` if it has tables that are not named here.
    pub fn open(path: impl AsRef<Path>, tables: &[Table], options: RocksOptions) -> Result<Self> {
        let path = path.as_ref().to_owned();
        if let Some(stray) = options.scratch.iter().find(|table| !tables.contains(table)) {
            return Err(Error::internal(format!("scratch table {stray:?} is not among the tables")));
        }
        create_dir_durably(&RealDisk, &path).map_err(|e| Error::io(format!("directory {}", path.display()), e))?;
        let db = open_db(&path, tables, &options).map_err(|e| open_error(&path, e))?;
        Ok(Self { db, path, scratch: options.scratch, poison: Mutex::new(None) })
    }

    fn family(&self, table: Table) -> Result<&ColumnFamily> {
        let missing = || Error::internal(format!("{} was opened without table {table:?}", self.path.display()));
        self.db.cf_handle(table).ok_or_else(missing)
    }

    fn error(&self, doing: &str, source: rocksdb::Error) -> Error {
        Error::new(kind_of(&source), format!("{doing} {}", self.path.display())).because(source)
    }

    /// Refuse writes once something went wrong, be it in the background.
    fn refuse_if_poisoned(&self) -> Result<()> {
        let mut poison = self.poison.lock();
        if poison.is_none() && self.background_errors() > 0 {
            *poison = Some("RocksDB reports a failed flush or compaction (see its LOG file)".to_owned());
        }
        match &*poison {
            None => Ok(()),
            Some(cause) => {
                let what =
                    format!("the store {} refuses writes since an earlier failure: {cause}", self.path.display());
                Err(Error::new(ErrorKind::ReadOnly, what).remedy("check the disk, then restart mimeo"))
            }
        }
    }

    fn background_errors(&self) -> u64 {
        self.db.property_int_value(properties::BACKGROUND_ERRORS).ok().flatten().unwrap_or(0)
    }

    /// Remember the first failure.
    fn poison(&self, source: rocksdb::Error) -> Error {
        self.poison.lock().get_or_insert_with(|| source.to_string());
        self.error("writing to", source).remedy("the store refuses writes until mimeo is restarted")
    }

    /// A scan; the inner result is what RocksDB says of it.
    fn visit_rows(
        &self,
        table: Table,
        from: &[u8],
        to: &[u8],
        mut options: ReadOptions,
        visit: Visit<'_>,
    ) -> Result<Result<(), rocksdb::Error>> {
        if !to.is_empty() {
            options.set_iterate_upper_bound(to);
        }
        // An iterator sees one state of the store: that of its creation.
        let mut rows = self.db.raw_iterator_cf_opt(self.family(table)?, options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(Ok(()));
            }
            rows.next();
        }
        Ok(rows.status())
    }

    fn encode(&self, batch: &Batch, durability: Durability) -> Result<WriteBatch> {
        batch.check_keys()?;
        let mut encoded = WriteBatch::default();
        for op in &batch.ops {
            let table = op.table();
            if self.scratch.contains(&table) != (durability == Durability::Scratch) {
                return Err(Error::internal(format!("table {table:?} does not take {durability:?} writes")));
            }
            encode_op(&mut encoded, self.family(table)?, op);
        }
        Ok(encoded)
    }
}

fn encode_op(encoded: &mut WriteBatch, family: &ColumnFamily, op: &Op) {
    match op {
        Op::Put { key, value, .. } => encoded.put_cf(family, key, value),
        Op::Delete { key, .. } => encoded.delete_cf(family, key),
        Op::DeleteRange { from, to, .. } if to.is_empty() => {
            encoded.delete_range_cf(family, from.as_slice(), &[0xff; MAX_KEY + 1]);
        }
        // RocksDB refuses a range that ends before it starts.
        Op::DeleteRange { from, to, .. } if from < to => encoded.delete_range_cf(family, from, to),
        Op::DeleteRange { .. } => {}
    }
}

impl KvStore for RocksKv {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.db.get_pinned_cf(self.family(table)?, key).map_err(|e| self.error("reading", e))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<()> {
        self.refuse_if_poisoned()?;
        let encoded = self.encode(&batch, durability)?;
        let synced = durability == Durability::Synced;
        if batch.is_empty() {
            // RocksDB may skip an empty batch; the promise about earlier ones holds all the same.
            return if synced { self.db.flush_wal(true).map_err(|e| self.poison(e)) } else { Ok(()) };
        }
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        options.disable_wal(durability == Durability::Scratch);
        self.db.write_opt(encoded, &options).map_err(|e| self.poison(e))
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<()> {
        self.visit_rows(table, from, to, ReadOptions::default(), visit)?.map_err(|e| self.error("scanning", e))
    }

    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached<Option<Vec<u8>>>> {
        match self.db.get_pinned_cf_opt(self.family(table)?, key, &cached_only()) {
            Ok(found) => Ok(Cached::Known(found.map(|value| value.to_vec()))),
            Err(e) if e.kind() == rocksdb::ErrorKind::Incomplete => Ok(Cached::Cold),
            Err(e) => Err(self.error("reading", e)),
        }
    }

    fn scan_cached(&self, table: Table, from: &[u8], to: &[u8], visit: Visit<'_>) -> Result<Cached<()>> {
        match self.visit_rows(table, from, to, cached_only(), visit)? {
            Ok(()) => Ok(Cached::Known(())),
            Err(e) if e.kind() == rocksdb::ErrorKind::Incomplete => Ok(Cached::Cold),
            Err(e) => Err(self.error("scanning", e)),
        }
    }
}

fn cached_only() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_read_tier(ReadTier::BlockCache);
    options
}

fn open_db(path: &Path, tables: &[Table], options: &RocksOptions) -> Result<DB, rocksdb::Error> {
    let cache = Cache::new_lru_cache(options.cache_bytes);
    let descriptors = tables.iter().map(|table| ColumnFamilyDescriptor::new(*table, table_options(options, &cache)));
    let mut db = DB::open_cf_descriptors(&store_options(options)?, path, descriptors)?;
    for table in &options.scratch {
        db.drop_cf(table)?;
        db.create_cf(table, &table_options(options, &cache))?;
    }
    Ok(db)
}

/// Options of the store as a whole.
fn store_options(options: &RocksOptions) -> Result<Options, rocksdb::Error> {
    let mut store = Options::default().get_options_from_string(EXTRA_OPTIONS)?;
    store.create_if_missing(true);
    store.create_missing_column_families(true);
    store.set_paranoid_checks(true);
    // A torn record at the end was not synced. Damage before it must not pass for an end: what follows
    // was acknowledged.
    store.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    store.set_db_write_buffer_size(options.memtable_bytes.saturating_mul(2));
    // A table that is seldom written must not keep old logs alive, which would make opening slow.
    store.set_max_total_wal_size(options.memtable_bytes.saturating_mul(4) as u64);
    store.set_max_open_files(options.max_open_files);
    store.set_max_background_jobs(2);
    store.set_keep_log_file_num(LOG_FILES);
    store.set_max_log_file_size(LOG_FILE_BYTES);
    store.set_log_level(LogLevel::Warn);
    store.set_stats_dump_period_sec(0);
    Ok(store)
}

/// Options of one table: made for looking up single keys, most of which are there or nearly so.
fn table_options(options: &RocksOptions, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_whole_key_filtering(true);
    // Partitions, so that a lookup brings in 4 KiB of filter, not the filter of a whole file.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(4096);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_top_level_index_and_filter(true);

    let mut table = Options::default();
    table.set_block_based_table_factory(&blocks);
    table.set_write_buffer_size(options.memtable_bytes);
    table.set_max_write_buffer_number(2);
    let compression = if options.compress { DBCompressionType::Lz4 } else { DBCompressionType::None };
    table.set_compression_type(compression);
    table
}

/// RocksDB tells kinds of failures apart only in the text of its messages.
fn kind_of(source: &rocksdb::Error) -> ErrorKind {
    match source.kind() {
        rocksdb::ErrorKind::Corruption => ErrorKind::Corrupt,
        rocksdb::ErrorKind::IOError if source.as_ref().contains("No space left") => ErrorKind::NoSpace,
        rocksdb::ErrorKind::IOError => ErrorKind::Io,
        rocksdb::ErrorKind::Busy | rocksdb::ErrorKind::TryAgain | rocksdb::ErrorKind::TimedOut => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Internal,
    }
}

fn open_error(path: &Path, source: rocksdb::Error) -> Error {
    let (shown, message) = (path.display(), source.as_ref());
    let error = if message.contains("lock") && message.contains("LOCK") {
        Error::new(ErrorKind::Unavailable, format!("another mimeo daemon holds {shown}")).remedy("stop it first")
    } else if message.contains("Column families not opened") {
        Error::invalid(format!("{shown} was written by a newer version of mimeo")).remedy("use that version")
    } else {
        Error::new(kind_of(&source), format!("opening the store {shown}"))
    };
    error.because(source)
}

#[cfg(test)]
mod tests;
